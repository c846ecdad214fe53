// Memory that blocks are read into, and kept for the next ones. storage.h states what it promises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

#include "block_pages.h"
#include "edge_runtime/storage.h"

namespace edge {

class BlockMemory {
 public:
  explicit BlockMemory(std::uint64_t limit) : limit_(limit) {}
  BlockMemory(const BlockMemory&) = delete;
  BlockMemory& operator=(const BlockMemory&) = delete;
  // REQUIRES that every buffer is gone.
  ~BlockMemory();

  // kIo where the system has no memory left; `path` is for the message.
  Result<Buffer> acquire(std::uint64_t length, const std::string& path);
  // Counts memory of a block that lies elsewhere (a mapping), so that what is kept makes room for it; and no longer.
  void charge(std::uint64_t length);
  void discharge(std::uint64_t length);
  // Gives the system back what is kept.
  void trim();
  std::uint64_t kept_bytes() const;   // of released blocks, for the next ones
  std::uint64_t spare_bytes() const;  // left over from huge pages

 private:
  struct Kept {
    std::byte* data;
    std::uint64_t length;
  };

  static void give_back(void* owner, std::byte* data, std::uint64_t length);
  // REQUIRE the lock.
  void make_room(std::uint64_t length);
  std::uint64_t room(std::uint64_t length) const;  // that blocks of so many more bytes leave for spare memory

  const std::uint64_t limit_;
  mutable std::mutex mutex_;
  std::deque<Kept> kept_;  // the longest kept first
  std::uint64_t kept_bytes_ = 0;
  std::uint64_t live_bytes_ = 0;
  BlockPages pages_;
};

}  // namespace edge
