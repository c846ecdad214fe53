#include "native/packing.h"

#include <algorithm>
#include <cstring>

#include "kernels/packed.h"

namespace edge::native {
namespace {

using kernels::kPackedRows;

// Calls move(bytes in the row, bytes in the block, how many) for every word and every scale of the row.
template <typename Data, typename Scale>
void for_each_word(DType dtype, std::size_t columns, std::size_t row, const Data& data, const Scale& scale) {
  const std::size_t bytes = row_bytes(dtype, columns);
  for (std::size_t at = 0; at < bytes; at += kernels::kPackedWord) {
    data(at, at * kPackedRows + row * kernels::kPackedWord, std::min(kernels::kPackedWord, bytes - at));
  }
  const std::size_t size = dtype == DType::kI4 ? 2 : sizeof(float);
  for (std::size_t at = 0; at < row_scale_bytes(dtype, columns); at += size) {
    scale(at, at * kPackedRows + row * size, size);
  }
}

}  // namespace

void pack_row(DType dtype, const std::byte* data, const std::byte* scales, std::size_t columns, std::size_t row,
              std::byte* block, std::byte* block_scales) {
  for_each_word(
      dtype, columns, row,
      [&](std::size_t from, std::size_t to, std::size_t size) { std::memcpy(block + to, data + from, size); },
      [&](std::size_t from, std::size_t to, std::size_t size) { std::memcpy(block_scales + to, scales + from, size); });
}

void unpack_row(DType dtype, const std::byte* block, const std::byte* block_scales, std::size_t columns,
                std::size_t row, std::byte* data, std::byte* scales) {
  for_each_word(
      dtype, columns, row,
      [&](std::size_t to, std::size_t from, std::size_t size) { std::memcpy(data + to, block + from, size); },
      [&](std::size_t to, std::size_t from, std::size_t size) { std::memcpy(scales + to, block_scales + from, size); });
}

}  // namespace edge::native
