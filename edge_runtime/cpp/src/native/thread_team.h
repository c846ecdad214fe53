// The engine's threads. They spin briefly for work, as the next piece is microseconds away while a token is decoded,
// then yield, then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "edge_runtime/parallel.h"

namespace edge::native {

// Tasks are taken one by one, so that a slow or interrupted core takes fewer; run() waits for tasks, never for threads:
// one that has taken nothing holds up nobody.
// run() is called by one thread at a time.
class ThreadTeam final : public Parallel {
 public:
  explicit ThreadTeam(std::size_t threads);  // the caller's included, >= 1
  ~ThreadTeam() override;
  std::size_t threads() const override { return workers_.size() + 1; }
  void run(std::size_t count, TaskRef task) override;

 private:
  void work();
  // Takes and runs tasks of the round that `round_` names until none is left.
  void take();

  // [which round: 32] [tasks: 16] [the next task: 16] in one word: whoever takes a task knows whose it is.
  std::atomic<std::uint64_t> round_ = 0;
  std::atomic<std::size_t> done_ = 0;
  std::atomic<std::uint32_t> asleep_ = 0;
  std::atomic<bool> stop_ = false;
  const TaskRef* task_ = nullptr;  // of the round; read only with a task taken
  std::vector<std::thread> workers_;
};

}  // namespace edge::native
