#include "native/product.h"

#include "native/stored.h"

namespace edge::native {
namespace {

constexpr std::size_t kTaskBytes = 16384;

kernels::Rows rows_of(const Matrix& matrix, std::size_t first, std::size_t count) {
  return {matrix.data + first * row_bytes(matrix.dtype, matrix.columns), nullptr, count, nullptr};
}

}  // namespace

std::size_t Products::task_rows(const Matrix& matrix) {
  if (!is_packed(matrix.dtype)) return kTileRows;
  const std::size_t blocks = kTaskBytes / kernels::packed_block_bytes(matrix.dtype, matrix.columns);
  return kernels::kPackedRows * std::clamp<std::size_t>(blocks, 1, kTileRows / kernels::kPackedRows);
}

void Products::multiply(const Matrix& matrix, std::size_t first_row, std::size_t rows, const Inputs& inputs,
                        std::size_t first_token, std::size_t tokens, float* y) const {
  if (is_packed(matrix.dtype)) {
    const std::size_t first = first_row / kernels::kPackedRows;
    const kernels::PackedBlocks blocks = {
        matrix.data + first * kernels::packed_block_bytes(matrix.dtype, matrix.columns),
        matrix.scales + first * kernels::packed_scale_bytes(matrix.dtype, matrix.columns), packed_blocks(rows)};
    const auto of = matrix.dtype == DType::kI4 ? packed_.i4 : packed_.i8;
    of(blocks, inputs.packed(first_token, tokens), y, kTileRows);
    return;
  }
  // What follows is asked for along the way: prefetchers of the hardware stop at the end of a page.
  const std::size_t following = std::min(first_row + rows, matrix.rows);
  const kernels::Rows next = rows_of(matrix, following, std::min(kTileRows, matrix.rows - following));
  kernels::Rows some = rows_of(matrix, first_row, rows);
  const auto dot = floats_[matrix.dtype].dot;
  if (tokens == 1) {
    some.next = &next;
    dot(some, inputs.floats(first_token, 1), matrix.columns, y);
    return;
  }
  alignas(kAlignment) std::array<float, kTileRows * kTileTokens> by_row;
  dot(some, inputs.floats(first_token, tokens), matrix.columns, by_row.data());
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t row = 0; row < rows; ++row) y[t * kTileRows + row] = by_row[row * tokens + t];
  }
}

}  // namespace edge::native
