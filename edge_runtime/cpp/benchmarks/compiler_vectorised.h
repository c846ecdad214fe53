// memory_ffn as plain loops that the compiler vectorises: rows dequantised one at a time, products in f32, one thread.
// What the kernels are measured against, beside the scalar reference.
#pragma once

#include <span>

#include "edge_runtime/memory_ffn.h"

namespace edge::bench {

void compiler_vectorised(std::span<const MemoryRows> blocks, const float* x, std::size_t tokens, std::size_t d,
                         float* y);

}  // namespace edge::bench
