// Compares eviction policies: the real pager over a simulated device, driven by seeded traces of topics.
//   eviction_traces [fetches] [seeds]
// Prints the table of docs/eviction.md. The bank has the shape of the 160M anchor's (fanout 16, three levels, blocks in
// proportion 16 : 4 : 1); blocks and bandwidth are 1/53 of it, so that times are those of the real sizes at 2 GB/s.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "edge_runtime/bank_writer.h"
#include "edge_runtime/pager.h"
#include "edge_runtime/storage_simulated.h"
#include "policies.h"
#include "traces.h"

namespace edge::bench {
namespace {

constexpr std::uint32_t kWidth = 64;
constexpr std::uint32_t kLayers = 4;
constexpr std::uint32_t kRows[] = {320, 80, 20};  // blocks of 16, 4 and 1 pages
constexpr double kPathsBeyondLeases[] = {0.5, 1, 3, 7};
constexpr SimulatedDevice::Profile kDevice = {.latency_ns = 100'000, .bytes_per_second = 38e6, .lanes = 4};

template <typename T>
T must(Result<T>&& result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "eviction_traces: %s\n", result.error().message.c_str());
  std::exit(1);
}

struct File {
  std::string path;
  std::vector<std::byte> bytes;
};

File make_level(const std::filesystem::path& directory, std::uint32_t level) {
  const std::string path = directory / ("level" + std::to_string(level));
  std::vector<std::uint32_t> layers(kLayers);
  std::iota(layers.begin(), layers.end(), 0);
  const std::uint64_t nodes = nodes_of_level(level);
  const std::uint32_t rows = kRows[level - 1];
  auto writer = must(
      BankLevelWriter::create(path, must(ffn_level_spec(level, kFanout, DType::kI8, kWidth, rows, layers, nodes))));
  const std::vector<float> values(std::size_t{kLayers} * 3 * rows * kWidth, 1);
  for (std::uint64_t node = 0; node < nodes; ++node) {
    if (!writer.append(node, values)) std::exit(1);
  }
  if (!writer.finish()) std::exit(1);
  std::ifstream file(path, std::ios::binary);
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return {path, std::move(bytes)};
}

struct Outcome {
  double share = 0;     // bytes read, of the bytes of the paths
  double fetch_ms = 0;  // mean
};

// Every user fetches in place of the lease that he holds, and the next fetch comes when all has arrived.
Outcome replay(const std::vector<File>& files, const std::vector<Visit>& trace, std::size_t users,
               double paths_beyond_leases, const PolicyMaker& maker) {
  ManualClock clock;
  const auto device = std::make_shared<SimulatedDevice>(clock, kDevice);
  std::vector<SimulatedStorage*> storages;
  std::vector<PagedLevel> levels;
  std::uint64_t path_bytes = 0;
  for (const File& file : files) {
    auto storage = std::make_unique<SimulatedStorage>(file.path, file.bytes, device);
    storages.push_back(storage.get());
    levels.emplace_back();
    levels.back().push_back({must(BankLevel::open(file.path)), std::move(storage)});
    path_bytes += levels.back().front().bank.spec().stride();
  }
  PagerOptions options;
  options.budget =
      static_cast<std::uint64_t>((static_cast<double>(users) + paths_beyond_leases) * static_cast<double>(path_bytes));
  options.verify = false;
  options.chunk_bytes = kPage;
  options.eviction = [&] { return maker(trace); };
  const auto pager = must(Pager::open(std::move(levels), options, clock));

  std::vector<std::optional<LeaseId>> leases(users);
  Outcome outcome;
  const std::size_t warm_up = trace.size() / 4;
  for (std::size_t i = 0; i < trace.size(); ++i) {
    const std::vector<Node> path = path_to(trace[i].leaf);
    std::optional<LeaseId>& lease = leases[trace[i].user];
    lease = must(pager->fetch(path, lease));
    while (!must(pager->ready(*lease))) {
      std::int64_t next = std::numeric_limits<std::int64_t>::max();
      for (const SimulatedStorage* storage : storages) {
        next = std::min(next, storage->next_completion_ns().value_or(next));
      }
      clock.advance(std::max<std::int64_t>(0, next - clock.now_ns()));
      pager->poll();
    }
    if (i < warm_up) continue;
    outcome.share += static_cast<double>(pager->lease_bytes_read(*lease)) / static_cast<double>(path_bytes);
    outcome.fetch_ms += static_cast<double>(*pager->lease_fetch_ns(*lease)) / 1e6;
  }
  const auto counted = static_cast<double>(trace.size() - warm_up);
  return {outcome.share / counted, outcome.fetch_ms / counted};
}

void run(std::size_t fetches, std::uint32_t seeds) {
  const auto directory = std::filesystem::temp_directory_path() / "edge-eviction-traces";
  std::filesystem::create_directories(directory);
  std::vector<File> files;
  for (std::uint32_t level = 1; level <= std::size(kRows); ++level) files.push_back(make_level(directory, level));

  const auto policies = all_policies();
  std::printf("| trace | paths beyond the leases |");
  for (const auto& [name, maker] : policies) std::printf(" %s |", name.c_str());
  std::printf("\n|---|---|");
  for (std::size_t i = 0; i < policies.size(); ++i) std::printf("---|");
  std::map<std::string, Outcome> total;
  for (const auto& [name, generator] : all_traces()) {
    for (const double paths : kPathsBeyondLeases) {
      std::printf("\n| %s | %.1f |", name.c_str(), paths);
      for (const auto& [policy, maker] : policies) {
        Outcome mean;
        for (std::uint32_t seed = 1; seed <= seeds; ++seed) {
          const auto [users, visits] = generator(seed, fetches);
          const Outcome one = replay(files, visits, users, paths, maker);
          mean.share += one.share / seeds;
          mean.fetch_ms += one.fetch_ms / seeds;
        }
        total[policy].share += mean.share;
        total[policy].fetch_ms += mean.fetch_ms;
        std::printf(" %.1f%%, %.2f ms |", 100 * mean.share, mean.fetch_ms);
        std::fflush(stdout);
      }
    }
  }
  const double rows = static_cast<double>(all_traces().size() * std::size(kPathsBeyondLeases));
  std::printf("\n| mean | |");
  for (const auto& [policy, maker] : policies) {
    std::printf(" %.1f%%, %.2f ms |", 100 * total[policy].share / rows, total[policy].fetch_ms / rows);
  }
  std::printf("\n");
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace edge::bench

int main(int argc, char** argv) {
  edge::bench::run(argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 4000,
                   argc > 2 ? static_cast<std::uint32_t>(std::strtoul(argv[2], nullptr, 10)) : 3);
}
