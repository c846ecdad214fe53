// A quantised row's place among the 16 of its block (kernels/packed.h), from and to the rows of quantize_row.
#pragma once

#include <cstddef>

#include "edge_runtime/dtype.h"

namespace edge::native {

// `row` < 16 of the block at `block` and `block_scales`. Columns that fill up the last group are not touched.
void pack_row(DType dtype, const std::byte* data, const std::byte* scales, std::size_t columns, std::size_t row,
              std::byte* block, std::byte* block_scales);
void unpack_row(DType dtype, const std::byte* block, const std::byte* block_scales, std::size_t columns,
                std::size_t row, std::byte* data, std::byte* scales);

}  // namespace edge::native
