#include "device.h"

#include <algorithm>

namespace edge {

Device::Device(const DeviceOptions& options)
    : memory_(options.memory != nullptr ? options.memory : make_block_memory(0)),
      pool_(std::max(options.lanes, 1U)),
      depth_(std::max(options.depth, 1U)) {}

Result<IoRing*> Device::ring() {
  const std::scoped_lock lock(mutex_);
  if (!ring_) ring_ = IoRing::create(depth_);
  if (!*ring_) return tl::make_unexpected(ring_->error());
  return (*ring_)->get();
}

std::shared_ptr<Device> make_device(const DeviceOptions& options) { return std::make_shared<Device>(options); }

}  // namespace edge
