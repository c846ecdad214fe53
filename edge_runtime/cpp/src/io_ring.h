// Reads through io_uring. One thread owns the ring: it submits what callers queue and reaps what completes. Callers do
// not submit themselves, because the kernel finishes a request on the thread that submitted it, and gives it up when
// that thread ends.
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
  std::function<bool()> wanted;  // asked on the ring's thread before the read begins
  std::function<void(std::int64_t result)>
      done;  // on the ring's thread: bytes read, or -errno; -ECANCELED if not wanted
};

// Thread-safe.
class IoRing {
 public:
  // kUnsupported, its message the reason, where this build, the kernel or a filter on system calls has no io_uring.
  static Result<std::unique_ptr<IoRing>> create(unsigned depth);
  IoRing() = default;
  IoRing(const IoRing&) = delete;
  IoRing& operator=(const IoRing&) = delete;
  virtual ~IoRing() = default;  // finishes what is queued

  // `depth` reads are under way at once, the others wait in the order of their arrival.
  virtual void read(RingRead read) = 0;
  virtual unsigned depth() const = 0;
};

}  // namespace edge
