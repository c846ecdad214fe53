// The engine's threads. They spin briefly for work, as the next piece is microseconds away while a token is decoded,
// then yield, then sleep.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "edge_runtime/parallel.h"

namespace edge::native {

// Each thread begins with a run of tasks of its own, which is a stream of memory, and then takes from the ends of the
// others': a slow or interrupted core does less. run() waits for tasks, never for threads: one that has taken nothing
// holds up nobody. One whose core is taken away while it has a task does; it is left out for a while then, as one
// thread reads more than half of what two do, and waiting for the other's next turn would cost milliseconds a token.
// run() is called by one thread at a time.
class ThreadTeam final : public Parallel {
 public:
  explicit ThreadTeam(std::size_t threads);  // the caller's included, >= 1
  ~ThreadTeam() override;
  std::size_t threads() const override { return workers_.size() + 1; }
  void run(std::size_t count, TaskRef task) override;

 private:
  using Clock = std::chrono::steady_clock;

  struct Member {
    // [round: 32] [the first task: 16] [behind the last: 16] in one word: whoever takes a task knows of which round.
    alignas(64) std::atomic<std::uint64_t> share = 0;
    // The last round that it was called to; written by run().
    alignas(64) std::atomic<std::uint32_t> called = 0;
    std::atomic<bool> asleep = false;
    alignas(64) std::atomic<bool> busy = false;
    // Of run() alone.
    Clock::time_point left_out_until;
    Clock::duration pause{};
  };

  void work(Member& self, std::size_t index);
  // Runs tasks until no member has one left.
  void take(std::size_t index);
  void call(std::size_t tasks, Clock::time_point now);
  void wait(Clock::time_point started);
  void leave_out_the_busy(Clock::time_point now);

  std::vector<Member> members_;  // the caller is the first
  std::atomic<std::size_t> unfinished_ = 0;
  std::atomic<bool> stop_ = false;
  const TaskRef* task_ = nullptr;  // of the round; read only with a task taken
  std::uint32_t round_ = 0;
  std::vector<std::thread> workers_;
};

}  // namespace edge::native
