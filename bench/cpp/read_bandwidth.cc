#include "read_bandwidth.h"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>

namespace edge::bench {
namespace {

constexpr std::size_t kHugePage = std::size_t{1} << 21U;
constexpr std::size_t kLanes = 16;  // independent sums: none waits for another, and compilers make vectors of them
// How far ahead memory is asked for. The hardware's prefetchers alone stop at the end of a page, and where memory
// answers slowly they read a fifth less.
constexpr std::size_t kAhead = 4096;
constexpr std::size_t kLine = 64;

std::uint64_t sum(const std::uint64_t* data, std::size_t count) {
  std::array<std::uint64_t, kLanes> sums{};
  for (std::size_t i = 0; i + kLanes <= count; i += kLanes) {
    const auto* const ahead = reinterpret_cast<const std::byte*>(data + i) + kAhead;  // prefetching never faults
    for (std::size_t line = 0; line < kLanes * sizeof *data; line += kLine) __builtin_prefetch(ahead + line, 0, 2);
    for (std::size_t lane = 0; lane < kLanes; ++lane) sums[lane] += data[i + lane];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t value : sums) total += value;
  return total;
}

}  // namespace

std::vector<double> read_passes(std::size_t bytes, unsigned threads, unsigned rounds) {
  const std::size_t count = bytes / sizeof(std::uint64_t);
  const std::size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(kHugePage, size), &std::free);
  if (!memory) return {};
  ::madvise(memory.get(), size, MADV_HUGEPAGE);
  auto* const data = static_cast<std::uint64_t*>(memory.get());
  for (std::size_t i = 0; i < count; ++i) data[i] = i;

  std::atomic<std::uint64_t> kept{0};  // so that the reads cannot be left out
  std::barrier gate(static_cast<std::ptrdiff_t>(threads));
  std::vector<double> seconds;
  std::vector<std::thread> team;
  team.reserve(threads);
  const std::size_t share = count / threads;
  for (unsigned thread = 0; thread < threads; ++thread) {
    team.emplace_back([&, thread] {
      for (unsigned round = 0; round < rounds; ++round) {
        gate.arrive_and_wait();
        const auto start = std::chrono::steady_clock::now();
        kept += sum(data + thread * share, share);
        gate.arrive_and_wait();
        if (thread == 0) {
          seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
      }
    });
  }
  for (std::thread& thread : team) thread.join();
  return seconds;
}

}  // namespace edge::bench
