#include "edge_runtime/tree.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <queue>
#include <string_view>
#include <utility>

#include "byte_source.h"
#include "durable.h"
#include "mapped_bytes.h"
#include "safetensors_header.h"

namespace edge {
namespace {

constexpr std::uint64_t kMostDepth = 8;
constexpr std::uint64_t kMostDim = 1U << 16U;
constexpr double kShut = std::numeric_limits<double>::infinity();  // the distance to a node that may not be chosen

bool is_blocked(std::span<const Node> blocked, std::uint32_t level, std::uint64_t index) {
  return std::find(blocked.begin(), blocked.end(), Node{level, index}) != blocked.end();
}

// In double precision: of finite floats it is finite, so that some child is always the nearest.
double squared_distance(const float* a, const float* b, std::size_t n) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double difference = static_cast<double>(a[i]) - b[i];
    sum += difference * difference;
  }
  return sum;
}

// Gives the pages of a mapping back when what has read them is done. A page cache of large folios, as Linux 6.18 has,
// maps megabytes for the few rows that a descent reads; faulting them in again costs microseconds.
class Leaving {
 public:
  explicit Leaving(const MappedBytes* mapped) : mapped_(mapped) {}
  Leaving(const Leaving&) = delete;
  Leaving& operator=(const Leaving&) = delete;
  ~Leaving() {
    if (mapped_ != nullptr) mapped_->leave();
  }

 private:
  const MappedBytes* mapped_;
};

bool all_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

Result<Tree> Tree::open(const std::string& path) {
  auto file = MappedBytes::open(path);
  if (!file) {
    return tl::make_unexpected(file.error());
  }
  auto tree = read(**file, (*file)->data(), *file);
  (*file)->leave();  // all of it was checked
  if (tree) tree->mapped_ = file->get();
  return tree;
}

Result<Tree> Tree::read(const ByteSource& source) { return read(source, nullptr, nullptr); }

Result<Tree> Tree::read(const ByteSource& source, const std::byte* data, std::shared_ptr<const void> held) {
  const std::string& path = source.name();
  const auto header = read_safetensors_header(source);
  if (!header) {
    return tl::make_unexpected(header.error());
  }
  const auto format = metadata_text(*header, path, "format");
  if (!format || *format != "edge-runtime.tree") {
    return fail(ErrorCode::kBadFormat, path + ": not a router tree (metadata 'format' is not edge-runtime.tree)");
  }
  const auto version = metadata_number(*header, path, "version", 1, 1);
  if (!version) {
    return fail(ErrorCode::kUnsupported, version.error().message + ": update edge-runtime");
  }
  const auto metric = metadata_text(*header, path, "metric");
  if (!metric || *metric != "l2") {
    return fail(ErrorCode::kUnsupported, path + ": metadata 'metric' is not l2");
  }
  const auto fanout = metadata_number(*header, path, "fanout", 2, 256);
  const auto depth = metadata_number(*header, path, "depth", 1, kMostDepth);
  const auto dim = metadata_number(*header, path, "dim", 1, kMostDim);
  for (const auto* number : {&fanout, &depth, &dim}) {
    if (!*number) {
      return tl::make_unexpected(number->error());
    }
  }
  Tree tree;
  tree.fanout_ = static_cast<std::uint32_t>(*fanout);
  tree.dim_ = static_cast<std::uint32_t>(*dim);
  // The centroids of levels that cannot be read where they lie, beside the file that holds the others.
  struct Held {
    std::shared_ptr<const void> file;
    std::vector<std::vector<float>> copies;
  };
  const auto kept = std::make_shared<Held>(Held{std::move(held), std::vector<std::vector<float>>(*depth)});
  tree.held_ = kept;
  tree.centroids_.resize(*depth);
  tree.documents_.resize(*depth);
  std::uint64_t nodes = 1;
  for (std::uint64_t l = 0; l < *depth; ++l) {
    nodes *= *fanout;  // at most 256^8 = 2^64: wraps to 0 only at the last level, which no tensor's shape then matches
    const std::string number = std::to_string(l + 1);
    const auto centroids = find_tensor(*header, path, "centroids." + number, "F32", {nodes, *dim});
    if (!centroids) {
      return tl::make_unexpected(centroids.error());
    }
    const std::uint64_t place = header->data_start + centroids->begin;
    if (data != nullptr && place % alignof(float) == 0) {
      tree.centroids_[l] = {reinterpret_cast<const float*>(data + place),
                            (centroids->end - centroids->begin) / sizeof(float)};
    } else {  // no mapping, or a writer that aligns nothing, as the format allows
      auto& copy = kept->copies[l];
      if (auto status = read_tensor(*header, source, "centroids." + number, "F32", {nodes, *dim}, copy); !status) {
        return tl::make_unexpected(status.error());
      }
      tree.centroids_[l] = copy;
    }
    if (auto status = read_tensor(*header, source, "documents." + number, "I32", {nodes}, tree.documents_[l]);
        !status) {
      return tl::make_unexpected(status.error());
    }
    if (nodes == 0 || !all_finite(tree.centroids_[l])) {
      return fail(ErrorCode::kBadFormat, path + ": centroids." + number + " has a value that is not finite");
    }
  }
  return tree;
}

Status Tree::check_embedding(std::span<const float> embedding) const {
  if (embedding.size() != dim_) {
    return fail(ErrorCode::kInvalidArgument, "the embedding has " + std::to_string(embedding.size()) +
                                                 " values, the tree needs " + std::to_string(dim_));
  }
  if (!all_finite(embedding)) {
    return fail(ErrorCode::kInvalidArgument, "the embedding has a value that is not finite");
  }
  return {};
}

std::vector<double> Tree::distances(std::span<const float> embedding, std::uint32_t level, std::uint64_t parent,
                                    std::span<const Node> blocked) const {
  std::vector<double> found(fanout_, kShut);
  for (std::uint64_t child = 0; child < fanout_; ++child) {
    const std::uint64_t node = parent * fanout_ + child;
    if (documents_[level - 1][node] > 0 && !is_blocked(blocked, level, node)) {
      found[child] = squared_distance(embedding.data(), centroids_[level - 1].data() + node * dim_, dim_);
    }
  }
  return found;
}

Result<Route> Tree::descend(std::span<const float> embedding, std::span<const Node> blocked,
                            std::optional<std::uint32_t> depth_limit) const {
  const Leaving leaving(mapped_);
  if (auto status = check_embedding(embedding); !status) {
    return tl::make_unexpected(status.error());
  }
  Route route;
  std::uint64_t parent = 0;
  const std::uint32_t last = std::min(depth(), depth_limit.value_or(depth()));
  for (std::uint32_t l = 1; l <= last; ++l) {
    auto found = distances(embedding, l, parent, blocked);
    const auto nearest = std::min_element(found.begin(), found.end());  // the first of equals
    const double best = *nearest;
    if (best == kShut) {
      break;
    }
    parent = parent * fanout_ + static_cast<std::uint64_t>(nearest - found.begin());
    *nearest = kShut;
    route.path.push_back(parent);
    route.margins.push_back(static_cast<float>(*std::min_element(found.begin(), found.end()) - best));
  }
  return route;
}

Result<std::vector<RankedPath>> Tree::rank(std::span<const float> embedding, std::size_t count,
                                           std::span<const Node> blocked,
                                           std::optional<std::uint32_t> depth_limit) const {
  const Leaving leaving(mapped_);
  if (auto status = check_embedding(embedding); !status) {
    return tl::make_unexpected(status.error());
  }
  if (count == 0 || count > kMostPaths) {
    return fail(ErrorCode::kInvalidArgument,
                std::to_string(count) + " paths: ask for 1 to " + std::to_string(kMostPaths));
  }
  // Best first: a step never concedes less than nothing, so whole paths leave the queue in their order.
  using Partial = std::pair<double, std::vector<std::uint64_t>>;
  std::priority_queue<Partial, std::vector<Partial>, std::greater<>> open;
  open.emplace(0, std::vector<std::uint64_t>());
  const std::uint32_t last = std::min(depth(), depth_limit.value_or(depth()));
  std::vector<RankedPath> ranked;
  while (!open.empty() && ranked.size() < count) {
    auto [conceded, path] = open.top();
    open.pop();
    std::vector<double> found;
    double best = kShut;
    if (path.size() < last) {
      found =
          distances(embedding, static_cast<std::uint32_t>(path.size()) + 1, path.empty() ? 0 : path.back(), blocked);
      best = *std::min_element(found.begin(), found.end());
    }
    if (best == kShut) {
      ranked.push_back({std::move(path), static_cast<float>(conceded)});
      continue;
    }
    const std::uint64_t first = (path.empty() ? 0 : path.back()) * fanout_;
    for (std::uint64_t child = 0; child < fanout_; ++child) {
      if (found[child] != kShut) {
        auto longer = path;
        longer.push_back(first + child);
        open.emplace(conceded + (found[child] - best), std::move(longer));
      }
    }
  }
  return ranked;
}

Result<float> Tree::conceded(std::span<const float> embedding, std::span<const std::uint64_t> path,
                             std::span<const Node> blocked) const {
  const Leaving leaving(mapped_);
  if (auto status = check_embedding(embedding); !status) {
    return tl::make_unexpected(status.error());
  }
  double sum = 0;
  std::uint64_t parent = 0;
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (i >= depth() || path[i] / fanout_ != parent) {
      return fail(ErrorCode::kInvalidArgument, "node " + std::to_string(path[i]) + " of level " +
                                                   std::to_string(i + 1) + " is no child of the node before it");
    }
    const auto found = distances(embedding, static_cast<std::uint32_t>(i) + 1, parent, blocked);
    if (found[path[i] % fanout_] == kShut) {
      return std::numeric_limits<float>::infinity();
    }
    sum += found[path[i] % fanout_] - *std::min_element(found.begin(), found.end());
    parent = path[i];
  }
  return static_cast<float>(sum);
}

Status write_tree(const std::string& path, std::uint32_t fanout, std::uint32_t dim,
                  std::span<const std::span<const float>> centroids,
                  std::span<const std::span<const std::int32_t>> documents) {
  using Json = nlohmann::ordered_json;
  if (fanout < 2 || fanout > 256 || dim == 0 || dim > kMostDim || centroids.empty() || centroids.size() > kMostDepth ||
      centroids.size() != documents.size()) {
    return fail(ErrorCode::kInvalidArgument, path + ": fanout, dim or depth is out of range");
  }
  Json header;
  header["__metadata__"] = {{"format", "edge-runtime.tree"},    {"version", "1"},
                            {"fanout", std::to_string(fanout)}, {"depth", std::to_string(centroids.size())},
                            {"dim", std::to_string(dim)},       {"metric", "l2"}};
  std::uint64_t offset = 0;
  std::uint64_t nodes = 1;
  for (std::size_t l = 0; l < centroids.size(); ++l) {
    nodes *= fanout;
    if (documents[l].size() != nodes || centroids[l].size() != nodes * dim || !all_finite(centroids[l])) {
      return fail(ErrorCode::kInvalidArgument,
                  path + ": level " + std::to_string(l + 1) + " has a wrong shape or a value that is not finite");
    }
    const std::string number = std::to_string(l + 1);
    const std::uint64_t middle = offset + centroids[l].size_bytes();
    const std::uint64_t end = middle + documents[l].size_bytes();
    header["centroids." + number] = {{"dtype", "F32"}, {"shape", {nodes, dim}}, {"data_offsets", {offset, middle}}};
    header["documents." + number] = {
        {"dtype", "I32"}, {"shape", Json::array({nodes})}, {"data_offsets", {middle, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // safetensors aligns the data region to 8 bytes
  const std::uint64_t length = text.size();
  const auto bytes = [](const auto* data, std::size_t size) {
    return std::string_view(reinterpret_cast<const char*>(data), size);
  };
  std::vector<std::string_view> parts = {bytes(&length, sizeof(length)), text};
  for (std::size_t l = 0; l < centroids.size(); ++l) {
    parts.push_back(bytes(centroids[l].data(), centroids[l].size_bytes()));
    parts.push_back(bytes(documents[l].data(), documents[l].size_bytes()));
  }
  return write_durably(path, parts);
}

}  // namespace edge
