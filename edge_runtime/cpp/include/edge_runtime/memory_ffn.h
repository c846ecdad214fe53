// FFN memory: y = sum over blocks of W3^T ( silu(W1 x) * (W2 x) )   Pouransari et al. 2025, section 2, appendix I.
#pragma once

#include <cstddef>
#include <span>

#include "edge_runtime/dtype.h"

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
// Thread-compatible: calls on distinct y and scratch may run at once.
std::size_t memory_ffn_scratch(std::span<const MemoryRows> blocks, std::size_t tokens, std::size_t d);
void memory_ffn(std::span<const MemoryRows> blocks, const float* x, std::size_t tokens, std::size_t d, float* y,
                std::span<float> scratch);

}  // namespace edge
