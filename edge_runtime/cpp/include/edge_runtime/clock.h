// Time as the pager sees it, so that tests and the simulator can run it over a clock of their own.
#pragma once

#include <cstdint>

namespace edge {

// Nanoseconds from an arbitrary start; never goes back.
class Clock {
 public:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  virtual ~Clock() = default;
  virtual std::int64_t now_ns() const = 0;
};

// The machine's monotonic clock. Thread-safe; lives as long as the process.
const Clock& system_clock();

// A clock that stands still until it is advanced. Not thread-safe.
class ManualClock final : public Clock {
 public:
  std::int64_t now_ns() const override { return now_ns_; }
  // REQUIRES ns >= 0.
  void advance(std::int64_t ns) { now_ns_ += ns; }

 private:
  std::int64_t now_ns_ = 0;
};

}  // namespace edge
