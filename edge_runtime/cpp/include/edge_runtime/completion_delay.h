// Holds completions back until their time: what the wrappers that slow a storage down are made of.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "edge_runtime/clock.h"
#include "edge_runtime/storage.h"

namespace edge {

// Calls come from one thread at a time. With a waker it has a thread, which calls the waker when the next completion is
// due by system_clock(); without one its user watches the clock, which may be any.
class CompletionDelay {
 public:
  // REQUIRES that the clock outlives it, and is system_clock() if a waker is set.
  explicit CompletionDelay(const Clock& clock) : clock_(clock) {}
  CompletionDelay(const CompletionDelay&) = delete;
  CompletionDelay& operator=(const CompletionDelay&) = delete;
  ~CompletionDelay();

  // REQUIRES that nothing is held.
  void set_waker(std::function<void()> waker) { waker_ = std::move(waker); }
  void hold(Completion completion, std::int64_t due_ns);
  // Appends what is due.
  void take_due(std::vector<Completion>& completions);
  // Forgets what is held.
  void clear();
  std::optional<std::int64_t> next_due_ns() const;

 private:
  struct Held {
    std::int64_t due_ns;
    Completion completion;
    bool announced = false;  // the waker was called for it
  };

  void watch();

  const Clock& clock_;
  std::function<void()> waker_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Held> held_;
  bool stopping_ = false;
  std::thread thread_;  // started with the first completion held, if there is a waker
};

}  // namespace edge
