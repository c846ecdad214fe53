#include "block_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "system_error.h"

namespace edge {

namespace {

// Of the processors we know. A wrong guess costs speed only.
constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20;

std::uint64_t reserved(std::uint64_t length) { return (length + kHugePage - 1) / kHugePage * kHugePage; }

// Anonymous memory that starts at a huge page and is huge pages where these fit whole: a device takes 2 MiB in one
// piece as fast again as 512 scattered pages, and one fault brings it instead of 512. The rest of the last huge page
// stays address space without memory, so that no byte beyond `length` is ever resident and no neighbour joins it.
// Not malloc: its heap keeps freed blocks resident, and a budget that the process exceeds is none.
std::byte* map_pages(std::uint64_t length) {
  const std::uint64_t whole = reserved(length);
  void* const raw = ::mmap(nullptr, whole + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* const start = static_cast<std::byte*>(raw);
  const std::uint64_t lead = kHugePage - reinterpret_cast<std::uintptr_t>(raw) % kHugePage;
  std::byte* const data = start + lead;
  ::munmap(start, lead);
  if (lead < kHugePage) ::munmap(data + whole, kHugePage - lead);
  if (::mprotect(data, length, PROT_READ | PROT_WRITE) != 0) {
    const int error = errno;
    ::munmap(data, whole);
    errno = error;
    return nullptr;
  }
#ifdef MADV_HUGEPAGE
  (void)::madvise(data, length, MADV_HUGEPAGE);  // advice: without it the pages are small
#endif
  return data;
}

void unmap_pages(std::byte* data, std::uint64_t length) { ::munmap(data, reserved(length)); }

}  // namespace

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
    data = map_pages(length);
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
  if (memory.live_bytes_ + memory.kept_bytes_ + length > memory.limit_) return unmap_pages(data, length);
  memory.kept_.push_back({data, length});
  memory.kept_bytes_ += length;
}

void BlockMemory::make_room(std::uint64_t length) {
  while (!kept_.empty() && live_bytes_ + kept_bytes_ + length > limit_) {
    kept_bytes_ -= kept_.front().length;
    unmap_pages(kept_.front().data, kept_.front().length);
    kept_.pop_front();
  }
}

void BlockMemory::charge(std::uint64_t length) {
  const std::scoped_lock lock(mutex_);
  make_room(length);
  live_bytes_ += length;
}

void BlockMemory::discharge(std::uint64_t length) {
  const std::scoped_lock lock(mutex_);
  live_bytes_ -= length;
}

void BlockMemory::trim() {
  const std::scoped_lock lock(mutex_);
  for (const Kept& kept : kept_) unmap_pages(kept.data, kept.length);
  kept_.clear();
  kept_bytes_ = 0;
}

std::uint64_t BlockMemory::kept_bytes() const {
  const std::scoped_lock lock(mutex_);
  return kept_bytes_;
}

}  // namespace edge
