// Products of a decoder's own quantised matrices, whose rows are packed for it (docs/native-format.md): blocks of 16
// rows in groups of 32 columns, a word of 4 columns of each of the 16 rows after another. So one instruction multiplies
// 16 rows (or 8, or 4) with 4 columns of a token, and no lane is ever added to another.
//
// Tokens are rounded to 8 bits, with a scale for every 32 columns: q = round(x * (127 / max|x|)). Then
//   sum  = the products of a row's and a token's group, exact in 32 bits
//   i8   y = scale of the row * (fma over groups, in their order, of sum * scale of the token's group)
//   i4   y = fma over groups, in their order, of sum * (scale of the row's group * scale of the token's group)
// All instruction sets do these float operations in this order: their results are bitwise the same, and so are those of
// calls with other tokens or rows beside. A group of a token that is not finite gives NaN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edge_runtime/dtype.h"
#include "edge_runtime/isa.h"
#include "kernels/kernels.h"

namespace edge::kernels {

inline constexpr std::size_t kPackedRows = 16;     // of a block
inline constexpr std::size_t kPackedColumns = 32;  // of a group
inline constexpr std::size_t kPackedWord = 4;      // columns that lie together
// The largest |q|.
inline constexpr int kPackedLimit = 127;
// Below this a group of a token counts as zeros, so that 127 / max|x| is finite.
inline constexpr float kSmallestGroup = 0x1p-100F;
// How far ahead of what is read memory is asked, in bytes, while one token is decoded. The hardware's prefetchers stop
// at the end of a page.
inline constexpr std::size_t kPackedAhead = 16384;

// A token's group as kernels read it.
struct PackedGroup {
  std::int8_t q[kPackedColumns];
  float scale;
  // What a sum starts with where weights are taken as unsigned: minus their offset (i8: 128, i4: 8) times the sum of q.
  std::int32_t start_i8;
  std::int32_t start_i4;
};

// The bytes of a block, and of its scales.
constexpr std::size_t packed_groups(std::size_t columns) { return (columns + kPackedColumns - 1) / kPackedColumns; }
constexpr std::size_t packed_block_bytes(DType dtype, std::size_t columns) {
  return packed_groups(columns) * kPackedColumns * kPackedRows / (dtype == DType::kI4 ? 2 : 1);
}
constexpr std::size_t packed_scale_bytes(DType dtype, std::size_t columns) {
  return dtype == DType::kI4 ? packed_groups(columns) * kPackedRows * 2 : kPackedRows * sizeof(float);
}

struct PackedBlocks {
  const std::byte* data = nullptr;
  const std::byte* scales = nullptr;
  std::size_t count = 0;
};

struct PackedTokens {
  const PackedGroup* data = nullptr;
  std::size_t groups = 0;  // of a token; the next token's follow
  std::size_t count = 0;
};

struct PackedKernels {
  // y[t * stride + row] for the rows of all blocks, which lie one after another.
  using Multiply = void (*)(const PackedBlocks& blocks, const PackedTokens& tokens, float* y, std::size_t stride);

  // Writes packed_groups(d) groups; columns from d on are zeros.
  void (*quantise)(const float* x, std::size_t d, PackedGroup* out) = nullptr;
  Multiply i8 = nullptr;
  Multiply i4 = nullptr;
};

// Null where this build or this machine lacks the instruction set.
const PackedKernels* packed_kernels_of(Isa isa);
const PackedKernels& active_packed_kernels();

// One file each, compiled with its own flags, as kernels.h says of its tables.
extern const PackedKernels kScalarPackedKernels;
extern const PackedKernels kAvx2PackedKernels;
extern const PackedKernels kAvx512PackedKernels;
extern const PackedKernels kAmxPackedKernels;
extern const PackedKernels kNeonPackedKernels;
extern const PackedKernels kNeonDotprodPackedKernels;

}  // namespace edge::kernels
