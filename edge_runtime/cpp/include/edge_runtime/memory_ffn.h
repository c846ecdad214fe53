// FFN memory: y = sum over blocks of W3^T ( silu(W1 x) * (W2 x) )   Pouransari et al. 2025, section 2, appendix I.
//
// Rows are read as they lie in the bank, each once for up to 16 tokens, at the speed of memory. What is computed:
// - f32, f16, bf16: products and sums in f32.
// - i8, i4: W1 and W2 meet x rounded to 16 bits, a scale a token, and their products are summed exactly. This adds at
//   most max|x| * 2^-16 * sum|w| to an element of W1 x. W3's rows, as integers q, meet h times their scale, rounded to
//   16 bits beside the largest of up to 64 rows. This adds at most max|h scale| * 2^-16 * sum|q| to an element of y.
//   Both are a hundredth or less of what the dtype itself costs. A token that is not finite gives NaN; an x, or an h
//   times its scales, of less than 2^-100 in all its elements counts as zero.
// Besides, against the formula in double precision on the values that the dtype holds, each sum (W1 x, W2 x, y) is off
// by at most 1e-6 of the sum of its terms' magnitudes. The tests hold every instruction set to these bounds.
//
// For given blocks, d and instruction set, a token's y is bitwise the same whatever the number of threads and whatever
// other tokens share the call.
#pragma once

#include <cstddef>
#include <span>

#include "edge_runtime/dtype.h"
#include "edge_runtime/parallel.h"

namespace edge {

// One layer of one leased block, read where it lies: `data` is [3, r, d], `scales` its scales (null for float dtypes).
struct MemoryRows {
  DType dtype = DType::kF32;
  std::size_t rows = 0;  // r
  const std::byte* data = nullptr;
  const std::byte* scales = nullptr;
};

// x, y: row-major [tokens, d], f32; y is overwritten. Any number of blocks, each with its own r and dtype; none gives
// zeros. No allocation: `scratch` holds at least memory_ffn_scratch(...) floats. x, y and scratch do not overlap.
// Uses the threads of `parallel` and returns when all is done.
// Thread-compatible: calls on distinct y and scratch may run at once.
std::size_t memory_ffn_scratch(std::span<const MemoryRows> blocks, std::size_t tokens, std::size_t d);
void memory_ffn(std::span<const MemoryRows> blocks, const float* x, std::size_t tokens, std::size_t d, float* y,
                std::span<float> scratch, Parallel& parallel = serial());

}  // namespace edge
