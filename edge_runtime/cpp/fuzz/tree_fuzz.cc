// The router's tree: a hostile file is refused with a clear line; one that is accepted is descended along its own
// nodes.
#include <charconv>
#include <cmath>
#include <string>
#include <vector>

#include "edge_runtime/tree.h"
#include "safetensors_input.h"

namespace edge::fuzz {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMostValues = 1U << 18U;

std::uint64_t number_of(const Json& header, const char* key) {
  const Json::json_pointer pointer(std::string("/__metadata__/") + key);
  std::uint64_t value = 0;
  if (header.contains(pointer) && header[pointer].is_string()) {
    const auto text = header[pointer].get<std::string>();
    std::from_chars(text.data(), text.data() + text.size(), value);
  }
  return value;
}

// The tensors of the tree that the metadata mean.
void derive(Json& header) {
  const std::uint64_t fanout = number_of(header, "fanout");
  const std::uint64_t depth = number_of(header, "depth");
  const std::uint64_t dim = number_of(header, "dim");
  std::uint64_t offset = 0;
  std::uint64_t nodes = 1;
  for (std::uint64_t level = 1; level <= depth && level <= 8; ++level) {
    if (fanout == 0 || dim == 0 || dim > kMostValues / fanout / nodes) {
      return;
    }
    nodes *= fanout;
    const std::uint64_t middle = offset + nodes * dim * 4;
    const std::uint64_t end = middle + nodes * 4;
    const std::string number = std::to_string(level);
    header["centroids." + number] = {{"dtype", "F32"}, {"shape", {nodes, dim}}, {"data_offsets", {offset, middle}}};
    header["documents." + number] = {
        {"dtype", "I32"}, {"shape", Json::array({nodes})}, {"data_offsets", {middle, end}}};
    offset = end;
  }
}

void require_descends(const Tree& tree, const std::vector<float>& embedding, const std::vector<Node>& blocked) {
  const auto route = tree.descend(embedding, blocked);
  require(route.has_value(), "a finite embedding of the tree's dimension is routed");
  require(route->path.size() <= tree.depth() && route->margins.size() == route->path.size(), "a margin a level");
  std::uint64_t parent = 0;
  for (std::size_t i = 0; i < route->path.size(); ++i) {
    require(route->path[i] / tree.fanout() == parent, "each node is a child of the one before");
    require(!(route->margins[i] < 0) && !std::isnan(route->margins[i]), "no runner-up is nearer");
    for (const Node& node : blocked) {
      require(node != Node{static_cast<std::uint32_t>(i + 1), route->path[i]}, "no blocked node is on the path");
    }
    parent = route->path[i];
  }
}

}  // namespace
}  // namespace edge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace edge::fuzz;
  const auto source = SafetensorsInput::of(
      {data, size}, {.alignment = 8, .filler = 0, .anchor = Anchor::kBegin, .hole = nullptr, .derive = derive});
  const auto tree = edge::Tree::read(source);
  if (!tree) {
    require_clear(tree.error(), source.name());
    return 0;
  }
  std::vector<float> embedding(tree->dim());
  const auto free = tree->descend(embedding);
  require_descends(*tree, embedding, {});
  if (free && !free->path.empty()) {
    const auto level = static_cast<std::uint32_t>(free->path.size());
    require_descends(*tree, embedding, {{level, free->path.back()}});
  }
  embedding[size % embedding.size()] = 3e38F;
  require_descends(*tree, embedding, {});
  embedding.pop_back();
  require(!tree->descend(embedding), "an embedding of another dimension is refused");
  return 0;
}
