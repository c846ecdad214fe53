#include "device.h"

#include <algorithm>

namespace edge {

namespace {

// Reads under way at once, of all devices. Each file keeps to its own depth below it.
constexpr unsigned kRingDepth = 64;

}  // namespace

Ring::~Ring() {
  if (!thread_.joinable()) return;  // its starter had a ring
  stopping_ = true;
  if (ring_ && *ring_) (**ring_)->wake();
  thread_.join();
}

Result<IoRing*> Ring::open() {
  const std::scoped_lock lock(mutex_);
  if (!ring_) {
    ring_ = IoRing::create(kRingDepth);
    if (*ring_ && !driven_) {
      thread_ = std::thread([this, ring = (*ring_)->get()] {
        while (!stopping_) ring->drive();
      });
    }
  }
  if (!*ring_) return tl::make_unexpected(ring_->error());
  return (*ring_)->get();
}

IoRing* Ring::opened() {
  const std::scoped_lock lock(mutex_);
  return ring_ && *ring_ ? (*ring_)->get() : nullptr;
}

std::shared_ptr<Ring> make_driven_ring() { return std::make_shared<Ring>(true); }

Device::Device(const DeviceOptions& options)
    : memory_(options.memory != nullptr ? options.memory : make_block_memory(0)),
      pool_(std::max(options.lanes, 1U)),
      ring_(options.ring != nullptr ? options.ring : std::make_shared<Ring>(false)),
      depth_(std::max(options.depth, 1U)) {}

std::shared_ptr<Device> make_device(const DeviceOptions& options) { return std::make_shared<Device>(options); }

}  // namespace edge
