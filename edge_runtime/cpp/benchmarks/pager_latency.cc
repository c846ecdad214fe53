// What a fetch costs: of a path that is resident, and of one that is read from disk, with verification and without.
//   pager_latency [directory] [rounds]
// Makes a bank with blocks of the 160M anchor's size (13.8, 3.4 and 0.9 MB in int8) in the directory, 170 MB, once.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iterator>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "edge_runtime/bank_writer.h"
#include "edge_runtime/blocking_pager.h"

namespace edge {
namespace {

constexpr std::uint32_t kFanout = 4;
constexpr std::uint32_t kWidth = 512;
constexpr std::uint32_t kLayers = 35;
constexpr std::uint32_t kRows[] = {256, 64, 16};
constexpr std::uint64_t kPlenty = std::uint64_t{1} << 28;

template <typename T>
T must(Result<T>&& result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "pager_latency: %s\n", result.error().message.c_str());
  std::exit(1);
}

void must(Status&& status) {
  if (status) return;
  std::fprintf(stderr, "pager_latency: %s\n", status.error().message.c_str());
  std::exit(1);
}

void write_level(const std::string& path, std::uint32_t level) {
  std::vector<std::uint32_t> layers(kLayers);
  std::iota(layers.begin(), layers.end(), 0);
  const std::uint64_t nodes = std::uint64_t{1} << (2 * level);
  const std::uint32_t rows = kRows[level - 1];
  auto writer = must(
      BankLevelWriter::create(path, must(ffn_level_spec(level, kFanout, DType::kI8, kWidth, rows, layers, nodes))));
  std::minstd_rand random(level);
  std::vector<float> values(std::size_t{kLayers} * 3 * rows * kWidth);
  for (std::uint64_t node = 0; node < nodes; ++node) {
    for (float& value : values) value = static_cast<float>(random() % 255) - 127;
    must(writer.append(node, values));
  }
  must(writer.finish());
}

std::int64_t timed_ns(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start).count();
}

struct Spread {
  double low, median, high;  // quartiles
};

Spread spread_of(std::vector<std::int64_t> times, double unit) {
  std::sort(times.begin(), times.end());
  const auto at = [&](std::size_t quarter) { return static_cast<double>(times[times.size() * quarter / 4]) / unit; };
  return {at(1), at(2), at(3)};
}

std::vector<Node> path_to(std::uint64_t leaf) { return {{1, leaf / 16}, {2, leaf / 4}, {3, leaf}}; }

void resident(const std::vector<std::vector<std::string>>& levels, int rounds) {
  const auto pager = must(BlockingPager::open(levels, StorageKind::kDirect, PagerOptions{.budget = kPlenty}));
  const auto kept = must(pager->fetch(path_to(21)));
  must(kept->wait());
  std::vector<std::int64_t> times;
  for (int round = 0; round < 200 * rounds; ++round) {
    times.push_back(timed_ns([&] {
      const auto lease = must(pager->fetch(path_to(21)));
      must(lease->wait());
    }));
  }
  const Spread us = spread_of(times, 1e3);
  std::printf("resident path, fetch + wait + release: median %.2f us, quartiles %.2f to %.2f\n", us.median, us.low,
              us.high);
}

void cold(const std::vector<std::vector<std::string>>& levels, int rounds) {
  std::vector<std::shared_ptr<BlockingPager>> pagers;
  for (const bool verify : {false, true}) {
    pagers.push_back(
        must(BlockingPager::open(levels, StorageKind::kDirect, PagerOptions{.budget = kPlenty, .verify = verify})));
  }
  std::vector<std::int64_t> times[2];
  std::uint64_t bytes = 0;
  for (int round = 0; round < rounds; ++round) {
    // Taken in turns, so that both see the same neighbours on the machine.
    for (const std::size_t which : {round % 2, 1 - round % 2}) {
      const auto nodes = path_to(static_cast<std::uint64_t>(round * 7 % 64));
      pagers[which]->shrink(kPlenty);
      times[which].push_back(timed_ns([&] {
        const auto lease = must(pagers[which]->fetch(nodes));
        must(lease->wait());
        bytes = lease->bytes_read();
      }));
    }
  }
  const Spread off = spread_of(times[0], 1e6);
  const Spread on = spread_of(times[1], 1e6);
  std::printf(
      "cold path of %.1f MB, direct: verified median %.2f ms (quartiles %.2f to %.2f), unverified %.2f "
      "(%.2f to %.2f)\n",
      static_cast<double>(bytes) / 1e6, on.median, on.low, on.high, off.median, off.low, off.high);
  std::printf("verified / unverified: medians %.3f, lower quartiles %.3f\n", on.median / off.median, on.low / off.low);
}

void run(const std::string& directory, int rounds) {
  std::vector<std::vector<std::string>> levels;
  for (std::uint32_t level = 1; level <= std::size(kRows); ++level) {
    const std::string path = directory + "/level" + std::to_string(level) + ".safetensors";
    if (!std::filesystem::exists(path)) write_level(path, level);
    levels.push_back({path});
  }
  resident(levels, rounds);
  cold(levels, rounds);
}

}  // namespace
}  // namespace edge

int main(int argc, char** argv) {
  const std::string directory = argc > 1 ? argv[1] : "build/pager_latency";
  std::filesystem::create_directories(directory);
  edge::run(directory, argc > 2 ? std::atoi(argv[2]) : 50);
}
