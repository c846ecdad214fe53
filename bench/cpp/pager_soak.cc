// edge_pager_soak: random fetches from a bank under a budget, with contents compared and the budget watched. A process
// of nothing but the core, so that a memory limit around it measures the pager.
//
// Sessions take turns, each switching its lease to the path of a random leaf. Every lease's wait is timed, and of every
// `check-every`th all layers are compared with the checksums of the file, read here and not by the pager.
// Prints one JSON object; exit code 0 when nothing was wrong, 1 when something was, 2 for a bad command line.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "edge_runtime/bank_level.h"
#include "edge_runtime/blocking_pager.h"
#include "edge_runtime/clock.h"

namespace edge::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kUsage =
    "usage: edge_pager_soak DIRECTORY --budget BYTES [--fetches 10000] [--seed 0] [--sessions 2] [--check-every 10]"
    " [--storage auto|direct|mapped]";

struct SoakOptions {
  std::string directory;
  std::uint64_t budget = 0;
  std::uint64_t fetches = 10'000;
  std::uint64_t seed = 0;
  std::uint64_t sessions = 2;
  std::uint64_t check_every = 10;
  StorageKind storage = StorageKind::kAuto;
};

Status bad_option(std::string_view name, std::string_view value) {
  return fail(ErrorCode::kInvalidArgument, std::string(name) + ": bad value '" + std::string(value) + "'; " + kUsage);
}

Result<SoakOptions> parse(std::span<char* const> arguments) {
  SoakOptions options;
  const std::map<std::string_view, std::uint64_t*> numbers = {{"--budget", &options.budget},
                                                              {"--fetches", &options.fetches},
                                                              {"--seed", &options.seed},
                                                              {"--sessions", &options.sessions},
                                                              {"--check-every", &options.check_every}};
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view name = arguments[i];
    if (!name.starts_with("--")) {
      if (!options.directory.empty()) return fail(ErrorCode::kInvalidArgument, kUsage);
      options.directory = name;
      continue;
    }
    const auto number = numbers.find(name);
    if ((number == numbers.end() && name != "--storage") || i + 1 == arguments.size()) {
      return fail(ErrorCode::kInvalidArgument, std::string(name) + ": no such option, or no value; " + kUsage);
    }
    const std::string_view value = arguments[++i];
    if (number == numbers.end()) {
      const auto kind = parse_storage_kind(value);
      if (!kind) return tl::make_unexpected(bad_option(name, value).error());
      options.storage = *kind;
    } else {
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), *number->second);
      if (error != std::errc() || end != value.data() + value.size()) {
        return tl::make_unexpected(bad_option(name, value).error());
      }
    }
  }
  if (options.directory.empty() || options.budget == 0 || options.sessions == 0 || options.check_every == 0) {
    return fail(ErrorCode::kInvalidArgument, kUsage);
  }
  return options;
}

// The bank as this tool sees it: level1.safetensors, level2..., opened a second time for its tables alone.
struct SoakBank {
  std::vector<std::vector<std::string>> paths;
  std::map<std::uint32_t, BankLevel> levels;
  std::vector<std::uint64_t> leaves;  // nodes of the last level that have a block
  std::uint64_t bytes = 0;
};

Result<SoakBank> open_bank(const std::string& directory) {
  SoakBank bank;
  for (std::uint32_t level = 1;; ++level) {
    const std::string path =
        (std::filesystem::path(directory) / ("level" + std::to_string(level) + ".safetensors")).string();
    std::error_code ignored;  // whatever is wrong with it, the last level is the one before
    if (!std::filesystem::exists(path, ignored)) break;
    auto opened = BankLevel::open(path);
    if (!opened) return tl::make_unexpected(opened.error());
    bank.bytes += opened->file_bytes();
    bank.levels.emplace(level, std::move(*opened));
    bank.paths.push_back({path});
  }
  if (bank.levels.empty()) return fail(ErrorCode::kNotFound, directory + ": holds no level1.safetensors");
  const BankLevel& last = bank.levels.rbegin()->second;
  for (std::uint64_t node = 0; node < last.spec().nodes; ++node) {
    if (last.row_of(node) >= 0) bank.leaves.push_back(node);
  }
  if (bank.leaves.empty()) return fail(ErrorCode::kNotFound, last.path() + ": holds no block");
  return bank;
}

std::vector<Node> path_of(const SoakBank& bank, std::uint64_t leaf) {
  std::vector<Node> nodes;
  std::uint64_t index = leaf;
  for (auto level = bank.levels.rbegin(); level != bank.levels.rend(); ++level) {
    nodes.push_back({level->first, index});
    index /= level->second.spec().fanout;
  }
  return nodes;
}

std::uint64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  return 0;
}

struct SoakCounts {
  std::vector<std::int64_t> fetch_ns;
  std::uint64_t layers_compared = 0;
  std::uint64_t layers_wrong = 0;
  std::uint64_t observed_peak = 0;  // resident + in flight, as the statistics say at every fetch and wait
};

void watch(const BlockingPager& pager, SoakCounts& counts) {
  const PagerStats stats = pager.stats().pager;
  counts.observed_peak = std::max(counts.observed_peak, stats.resident_bytes + stats.in_flight_bytes);
}

Status compare(const SoakBank& bank, Lease& lease, SoakCounts& counts) {
  const auto blocks = lease.blocks();
  if (!blocks) return tl::make_unexpected(blocks.error());
  for (const LeasedBlock& block : *blocks) {
    const BankLevel& level = bank.levels.at(block.node.level);
    const auto row = static_cast<std::uint64_t>(level.row_of(block.node.index));
    const std::span<const std::byte> bytes(block.data, level.spec().stride());
    for (std::uint64_t layer = 0; layer < level.spec().layers(); ++layer) {
      ++counts.layers_compared;
      if (layer_checksum(level.spec(), bytes, layer) != level.checksum(row, layer)) ++counts.layers_wrong;
    }
  }
  return {};
}

Status run(const SoakBank& bank, const SoakOptions& options, BlockingPager& pager, SoakCounts& counts) {
  std::mt19937_64 random(options.seed);
  std::vector<std::shared_ptr<Lease>> leases(options.sessions);
  for (std::uint64_t i = 0; i < options.fetches; ++i) {
    const std::vector<Node> nodes = path_of(bank, bank.leaves[random() % bank.leaves.size()]);
    std::shared_ptr<Lease>& lease = leases[i % options.sessions];
    const std::int64_t start_ns = system_clock().now_ns();
    auto granted = pager.fetch(nodes, lease);
    if (!granted) return tl::make_unexpected(granted.error());
    lease = std::move(*granted);
    watch(pager, counts);
    if (auto arrived = lease->wait(); !arrived) return arrived;
    counts.fetch_ns.push_back(system_clock().now_ns() - start_ns);
    watch(pager, counts);
    if (i % options.check_every != 0) continue;
    if (auto compared = compare(bank, *lease, counts); !compared) return compared;
  }
  return {};
}

Json percentiles(std::vector<std::int64_t> values) {
  if (values.empty()) return nullptr;
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const auto index = static_cast<std::size_t>(share * static_cast<double>(values.size() - 1));
    return static_cast<double>(values[index]) / 1e6;
  };
  return {{"p50", at(0.5)}, {"p90", at(0.9)}, {"p99", at(0.99)}, {"p999", at(0.999)}, {"max", at(1.0)}};
}

Json report(const SoakBank& bank, const SoakOptions& options, const BlockingPager& pager, const SoakCounts& counts,
            double seconds, const Status& status) {
  const PagerStats stats = pager.stats().pager;
  Json storages = Json::array();
  for (const StorageReport& storage : pager.storage_reports()) {
    storages.push_back({{"path", storage.path}, {"backend", storage.backend}, {"reason", storage.reason}});
  }
  Json record = {{"bank_bytes", bank.bytes},
                 {"seed", options.seed},
                 {"sessions", options.sessions},
                 {"fetches", counts.fetch_ns.size()},
                 {"fetches_asked", options.fetches},
                 {"budget_bytes", options.budget},
                 {"peak_bytes", stats.peak_bytes},
                 {"observed_peak_bytes", counts.observed_peak},
                 {"within_budget", std::max(stats.peak_bytes, counts.observed_peak) <= options.budget},
                 {"vm_hwm_bytes", peak_resident_bytes()},
                 {"fetch_ms", percentiles(counts.fetch_ns)},
                 {"seconds", seconds},
                 {"bytes_read", stats.bytes_read},
                 {"requests", stats.requests},
                 {"hits", stats.hits},
                 {"misses", stats.misses},
                 {"evictions", stats.evictions},
                 {"rereads", stats.rereads},
                 {"layers_compared", counts.layers_compared},
                 {"layers_wrong", counts.layers_wrong},
                 {"storage", storages},
                 {"error", nullptr}};
  if (!status) record["error"] = status.error().message;
  return record;
}

int soak(const SoakOptions& options) {
  const auto bank = open_bank(options.directory);
  if (!bank) {
    std::fprintf(stderr, "edge_pager_soak: %s\n", bank.error().message.c_str());
    return 1;
  }
  PagerOptions pager_options;
  pager_options.budget = options.budget;
  const auto pager = BlockingPager::open(bank->paths, options.storage, pager_options);
  if (!pager) {
    std::fprintf(stderr, "edge_pager_soak: %s\n", pager.error().message.c_str());
    return 1;
  }
  SoakCounts counts;
  counts.fetch_ns.reserve(options.fetches);
  const std::int64_t start_ns = system_clock().now_ns();
  const Status status = run(*bank, options, **pager, counts);
  const double seconds = static_cast<double>(system_clock().now_ns() - start_ns) / 1e9;
  const Json record = report(*bank, options, **pager, counts, seconds, status);
  std::printf("%s\n", record.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  if (!status) std::fprintf(stderr, "edge_pager_soak: %s\n", status.error().message.c_str());
  return status && counts.layers_wrong == 0 && record["within_budget"].get<bool>() ? 0 : 1;
}

}  // namespace
}  // namespace edge::bench

int main(int argc, char** argv) try {
  const auto options = edge::bench::parse(std::span<char* const>(argv, static_cast<std::size_t>(argc)).subspan(1));
  if (!options) {
    std::fprintf(stderr, "edge_pager_soak: %s\n", options.error().message.c_str());
    return 2;
  }
  return edge::bench::soak(*options);
} catch (const std::exception& error) {
  // The core throws nothing; the standard library's containers and the JSON that is printed may, for want of memory.
  std::fprintf(stderr, "edge_pager_soak: %s\n", error.what());
  return 1;
}
