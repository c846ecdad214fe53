// Reads through io_uring. The ring has no thread: whoever waits for its reads drives it, so that a completion wakes the
// thread that uses it and no other. Callers do not submit themselves, because the kernel finishes a request on the
// thread that submitted it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "edge_runtime/result.h"

namespace edge {

struct RingRead {
  int fd = -1;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::byte* destination = nullptr;
  std::function<bool()> wanted;                   // asked before the read begins
  std::function<void(std::int64_t result)> done;  // bytes read, or -errno; -ECANCELED if not wanted
};

class IoRing {
 public:
  // kUnsupported, its message the reason, where this build, the kernel or a filter on system calls has no io_uring.
  static Result<std::unique_ptr<IoRing>> create(unsigned depth);
  IoRing() = default;
  IoRing(const IoRing&) = delete;
  IoRing& operator=(const IoRing&) = delete;
  // REQUIRES that no read is queued or under way and nobody is in drive().
  virtual ~IoRing() = default;

  // Queues a read. `depth` of them are under way at once. Thread-safe.
  virtual void read(RingRead read) = 0;
  // Begins what is queued, waits until something has completed or wake() was called, and ends what has completed: calls
  // `wanted` and `done`. REQUIRES that it is always the same thread.
  virtual void drive() = 0;
  // Ends one drive(), the next one if none is going on. Nothing when the driver calls it. Thread-safe.
  virtual void wake() = 0;
};

}  // namespace edge
