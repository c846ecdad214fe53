#include "edge_runtime/completion_delay.h"

#include <algorithm>
#include <chrono>

namespace edge {

CompletionDelay::~CompletionDelay() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void CompletionDelay::hold(Completion completion, std::int64_t due_ns) {
  {
    const std::scoped_lock lock(mutex_);
    held_.push_back({.due_ns = due_ns, .completion = std::move(completion)});
  }
  if (!waker_) return;
  if (!thread_.joinable()) thread_ = std::thread([this] { watch(); });
  changed_.notify_one();
}

void CompletionDelay::take_due(std::vector<Completion>& completions) {
  const std::scoped_lock lock(mutex_);
  const std::int64_t now_ns = clock_.now_ns();
  // In the order of their time, however late the caller comes.
  std::stable_sort(held_.begin(), held_.end(), [](const Held& a, const Held& b) { return a.due_ns < b.due_ns; });
  auto held = held_.begin();
  for (; held != held_.end() && held->due_ns <= now_ns; ++held) completions.push_back(std::move(held->completion));
  held_.erase(held_.begin(), held);
}

void CompletionDelay::clear() {
  const std::scoped_lock lock(mutex_);
  held_.clear();
}

std::optional<std::int64_t> CompletionDelay::next_due_ns() const {
  const std::scoped_lock lock(mutex_);
  if (held_.empty()) return std::nullopt;
  return std::min_element(held_.begin(), held_.end(), [](const Held& a, const Held& b) { return a.due_ns < b.due_ns; })
      ->due_ns;
}

void CompletionDelay::watch() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const std::int64_t now_ns = clock_.now_ns();
    bool due = false;
    std::optional<std::int64_t> next;
    for (Held& held : held_) {
      if (held.announced) continue;
      if (held.due_ns <= now_ns) {
        held.announced = due = true;
      } else if (!next || held.due_ns < *next) {
        next = held.due_ns;
      }
    }
    if (due) {
      lock.unlock();
      waker_();
      lock.lock();
    } else if (next) {
      changed_.wait_for(lock, std::chrono::nanoseconds(*next - now_ns));
    } else {
      changed_.wait(lock);
    }
  }
}

}  // namespace edge
