#include "native/thread_team.h"

#include <algorithm>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace edge::native {
namespace {

constexpr std::uint64_t kTasksShift = 16;
constexpr std::uint64_t kRoundShift = 32;
constexpr std::uint64_t kMostTasks = (1U << 16U) - 1;

// About 20 and 500 microseconds: a token's serial steps are shorter than the first, what lies between two tokens
// mostly shorter than the second.
constexpr std::uint32_t kSpins = 1000;
constexpr std::uint32_t kYields = 400;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // unlike `yield`, it does wait on today's cores
#endif
}

}  // namespace

ThreadTeam::ThreadTeam(std::size_t threads) {
  for (std::size_t i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
}

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  round_ += std::uint64_t{1} << kRoundShift;
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::run(std::size_t count, TaskRef task) {
  if (workers_.empty() || count == 1) {
    for (std::size_t i = 0; i < count; ++i) task(i);
    return;
  }
  for (std::size_t first = 0; first < count; first += kMostTasks) {
    const std::size_t tasks = std::min<std::size_t>(count - first, kMostTasks);
    const auto shifted = [&](std::size_t i) { task(first + i); };
    const TaskRef of_this_round = shifted;
    task_ = &of_this_round;
    done_.store(0, std::memory_order_relaxed);
    const std::uint64_t round = (round_.load(std::memory_order_relaxed) >> kRoundShift) + 1;
    round_.store(round << kRoundShift | tasks << kTasksShift);
    if (asleep_.load() != 0) round_.notify_all();
    take();
    for (std::uint32_t spins = 0; done_.load(std::memory_order_acquire) != tasks; ++spins) {
      if (spins < kSpins) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
  }
}

void ThreadTeam::take() {
  std::uint64_t seen = round_.load(std::memory_order_acquire);
  for (;;) {
    const std::uint64_t next = seen & kMostTasks;
    if (next >= (seen >> kTasksShift & kMostTasks)) return;
    if (!round_.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    // The round cannot end, nor task_ change, before this task is done.
    (*task_)(next);
    done_.fetch_add(1, std::memory_order_release);
    seen = round_.load(std::memory_order_acquire);
  }
}

void ThreadTeam::work() {
  std::uint64_t last = 0;
  for (;;) {
    std::uint64_t now = round_.load(std::memory_order_acquire);
    for (std::uint32_t spins = 0; now >> kRoundShift == last; ++spins, now = round_.load(std::memory_order_acquire)) {
      if (spins < kSpins) {
        pause();
      } else if (spins < kSpins + kYields) {
        std::this_thread::yield();
      } else {
        ++asleep_;
        round_.wait(now);
        --asleep_;
      }
    }
    if (stop_.load()) return;
    last = now >> kRoundShift;
    take();
  }
}

}  // namespace edge::native
