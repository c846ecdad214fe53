#include "block_memory.h"

#include <algorithm>
#include <cerrno>

#include "system_error.h"

namespace edge {

std::shared_ptr<BlockMemory> make_block_memory(std::uint64_t limit) { return std::make_shared<BlockMemory>(limit); }

BlockMemory::~BlockMemory() { trim(); }

Result<Buffer> BlockMemory::acquire(std::uint64_t length, const std::string& path) {
  const std::scoped_lock lock(mutex_);
  // The one that was kept last: its pages are likeliest to be in the processor's caches.
  const auto same = std::find_if(kept_.rbegin(), kept_.rend(), [&](const Kept& kept) { return kept.length == length; });
  std::byte* data = nullptr;
  if (same != kept_.rend()) {
    data = same->data;
    kept_bytes_ -= length;
    kept_.erase(std::next(same).base());
  } else {
    make_room(length);
    data = pages_.map(length, room(length));
    if (data == nullptr) {
      return system_error(path, "no memory for a block of " + std::to_string(length) + " bytes", errno);
    }
  }
  live_bytes_ += length;
  return Buffer(data, BufferRelease{give_back, this, length});
}

void BlockMemory::give_back(void* owner, std::byte* data, std::uint64_t length) {
  auto& memory = *static_cast<BlockMemory*>(owner);
  const std::scoped_lock lock(memory.mutex_);
  memory.live_bytes_ -= length;
  const std::uint64_t held = memory.live_bytes_ + memory.kept_bytes_ + memory.pages_.spare_bytes();
  if (held + length > memory.limit_) return BlockPages::unmap(data, length);
  memory.kept_.push_back({data, length});
  memory.kept_bytes_ += length;
}

void BlockMemory::make_room(std::uint64_t length) {
  while (!kept_.empty() && live_bytes_ + kept_bytes_ + length > limit_) {
    kept_bytes_ -= kept_.front().length;
    BlockPages::unmap(kept_.front().data, kept_.front().length);
    kept_.pop_front();
  }
}

std::uint64_t BlockMemory::room(std::uint64_t length) const {
  const std::uint64_t held = live_bytes_ + kept_bytes_ + length;
  return held < limit_ ? limit_ - held : 0;
}

void BlockMemory::charge(std::uint64_t length) {
  const std::scoped_lock lock(mutex_);
  make_room(length);
  pages_.drop_spare(room(length));
  live_bytes_ += length;
}

void BlockMemory::discharge(std::uint64_t length) {
  const std::scoped_lock lock(mutex_);
  live_bytes_ -= length;
}

void BlockMemory::trim() {
  const std::scoped_lock lock(mutex_);
  for (const Kept& kept : kept_) BlockPages::unmap(kept.data, kept.length);
  kept_.clear();
  kept_bytes_ = 0;
  pages_.drop_spare(0);
}

std::uint64_t BlockMemory::kept_bytes() const {
  const std::scoped_lock lock(mutex_);
  return kept_bytes_;
}

std::uint64_t BlockMemory::spare_bytes() const {
  const std::scoped_lock lock(mutex_);
  return pages_.spare_bytes();
}

}  // namespace edge
