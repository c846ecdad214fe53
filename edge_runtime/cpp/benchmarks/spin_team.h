// A team of threads for benchmarks: it spins for work and then yields, as an engine's pool does between operators.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "edge_runtime/parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace edge::bench {

class SpinTeam final : public Parallel {
 public:
  explicit SpinTeam(std::size_t threads) {
    for (std::size_t i = 1; i < threads; ++i) team_.emplace_back([this] { work(); });
  }
  ~SpinTeam() override {
    stop_ = true;
    ++generation_;
    for (std::thread& thread : team_) thread.join();
  }
  std::size_t threads() const override { return team_.size() + 1; }
  void run(std::size_t count, TaskRef task) override {
    task_ = &task;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    at_work_.store(team_.size(), std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    take();
    wait([&] { return at_work_.load(std::memory_order_acquire) == 0; });
  }

 private:
  template <typename Done>
  static void wait(const Done& done) {
    for (std::uint32_t spins = 0; !done(); ++spins) {
      if (spins > 20000) std::this_thread::yield();
#if defined(__x86_64__)
      _mm_pause();
#endif
    }
  }
  void take() {
    for (std::size_t i = next_++; i < count_; i = next_++) (*task_)(i);
  }
  void work() {
    std::uint64_t seen = 0;
    for (;;) {
      wait([&] { return generation_.load(std::memory_order_acquire) != seen; });
      ++seen;
      if (stop_) return;
      take();
      at_work_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> team_;
  std::atomic<std::uint64_t> generation_ = 0;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<std::size_t> at_work_ = 0;
  std::atomic<bool> stop_ = false;
  const TaskRef* task_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace edge::bench
