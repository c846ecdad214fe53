#include "block_pages.h"

#include <sys/mman.h>

#include <algorithm>

namespace edge {

namespace {

// Of the processors we know. A wrong guess costs speed only.
constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20;
// Below it a block is not worth address space of its own, of which the system grants a process some ten thousand
// stretches: plain mappings grow together.
constexpr std::uint64_t kSmallBlock = kHugePage / 8;

std::uint64_t address_space(std::uint64_t length) { return (length + kHugePage - 1) / kHugePage * kHugePage; }

// Address space without memory, at a huge page. The rest of its last huge page stays so: no neighbour joins it.
std::byte* reserve(std::uint64_t length) {
  const std::uint64_t whole = address_space(length);
  void* const raw = ::mmap(nullptr, whole + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* const start = static_cast<std::byte*>(raw);
  const std::uint64_t lead = kHugePage - reinterpret_cast<std::uintptr_t>(raw) % kHugePage;
  ::munmap(start, lead);
  if (lead < kHugePage) ::munmap(start + lead + whole, kHugePage - lead);
  return start + lead;
}

bool make_writable(std::byte* data, std::uint64_t length) {
  if (length == 0) return true;
  if (::mprotect(data, length, PROT_READ | PROT_WRITE) != 0) return false;
#ifdef MADV_HUGEPAGE
  (void)::madvise(data, length, MADV_HUGEPAGE);  // advice: without it the pages are small
#endif
  return true;
}

}  // namespace

std::byte* BlockPages::map(std::uint64_t length, std::uint64_t spare_limit) {
  // Never malloc: its heap keeps freed blocks resident, and a budget that the process exceeds is none.
  if (length < kSmallBlock) {
    void* const data = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    drop_spare(spare_limit);
    return data == MAP_FAILED ? nullptr : static_cast<std::byte*>(data);
  }
  std::byte* const data = reserve(length);
  if (data == nullptr) return nullptr;
  const std::uint64_t huge = length / kHugePage * kHugePage;
  const bool mapped = make_writable(data, huge) && map_tail(data + huge, length - huge, spare_limit);
  drop_spare(spare_limit);
  if (mapped) return data;
  unmap(data, length);
  return nullptr;
}

void BlockPages::unmap(std::byte* data, std::uint64_t length) {
  ::munmap(data, length < kSmallBlock ? length : address_space(length));
}

void BlockPages::drop_spare(std::uint64_t limit) {
  while (spare_bytes_ > limit) {
    Piece& piece = spare_.back();
    const std::uint64_t cut = std::min(piece.length, spare_bytes_ - limit);
    ::munmap(piece.data + piece.length - cut, cut);
    spare_bytes_ -= cut;
    piece.length -= cut;
    if (piece.length == 0) spare_.pop_back();
  }
}

#ifdef __linux__

// Puts spare memory where address space is reserved: the system moves pages without copying them.
bool BlockPages::map_tail(std::byte* data, std::uint64_t length, std::uint64_t spare_limit) {
  while (length > 0) {
    if (spare_.empty() && !open_huge_page(length + spare_limit)) return make_writable(data, length);
    const auto piece = choose(length);
    const std::uint64_t taken = std::min(piece->length, length);
    std::byte* const from = piece->data + piece->length - taken;
    if (::mremap(from, taken, taken, MREMAP_MAYMOVE | MREMAP_FIXED, data) == MAP_FAILED) return false;
    spare_bytes_ -= taken;
    piece->length -= taken;
    if (piece->length == 0) spare_.erase(piece);
    data += taken;
    length -= taken;
  }
  return true;
}

// A whole huge page as spare memory. Not for less than half of it: what is given back of a huge page in use, the system
// gets only once it looks for memory.
bool BlockPages::open_huge_page(std::uint64_t wanted) {
  if (wanted < kHugePage / 2) return false;
  std::byte* const data = reserve(kHugePage);
  if (data == nullptr) return false;
  if (!make_writable(data, kHugePage)) {
    ::munmap(data, kHugePage);
    return false;
  }
  *static_cast<volatile std::byte*>(data) = std::byte{0};  // the fault that brings it, while it is in one piece
  spare_.push_back({data, kHugePage});
  spare_bytes_ += kHugePage;
  return true;
}

// The smallest piece that is enough; the largest where none is.
std::vector<BlockPages::Piece>::iterator BlockPages::choose(std::uint64_t length) {
  return std::min_element(spare_.begin(), spare_.end(), [length](const Piece& a, const Piece& b) {
    const bool a_enough = a.length >= length;
    const bool b_enough = b.length >= length;
    if (a_enough != b_enough) return a_enough;
    return a_enough ? a.length < b.length : a.length > b.length;
  });
}

#else

bool BlockPages::map_tail(std::byte* data, std::uint64_t length, std::uint64_t /*spare_limit*/) {
  return make_writable(data, length);
}

#endif

}  // namespace edge
