// Pages of blocks, in as few pieces as the system can be brought to: a device takes 2 MiB in one piece twice as fast as
// in 512 scattered pages, and one page fault brings it instead of 512.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edge {

// Not thread-safe.
class BlockPages {
 public:
  BlockPages() = default;
  BlockPages(const BlockPages&) = delete;
  BlockPages& operator=(const BlockPages&) = delete;
  ~BlockPages() { drop_spare(0); }

  // `length` bytes that start at a page, null where the system has no memory left. Whole huge pages; what remains is
  // cut from huge pages that blocks share, and the rest of such a page is spare memory, of which at most `spare_limit`
  // bytes are left afterwards. No byte beyond `length` and the spare ones stays resident. REQUIRES a multiple of kPage.
  std::byte* map(std::uint64_t length, std::uint64_t spare_limit);
  static void unmap(std::byte* data, std::uint64_t length);

  std::uint64_t spare_bytes() const { return spare_bytes_; }
  // Gives the system spare memory back until no more than `limit` bytes are left.
  void drop_spare(std::uint64_t limit);

 private:
  struct Piece {
    std::byte* data;
    std::uint64_t length;
  };

  bool map_tail(std::byte* data, std::uint64_t length, std::uint64_t spare_limit);
  bool open_huge_page(std::uint64_t wanted);
  std::vector<Piece>::iterator choose(std::uint64_t length);

  std::vector<Piece> spare_;
  std::uint64_t spare_bytes_ = 0;
};

}  // namespace edge
