// Bounds of the native engine's fixed buffers.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace edge::native {

inline constexpr std::size_t kMostHeadDim = 256;
// Query vectors that meet a chunk of keys at once: a group's heads, and as many tokens of them as fit.
inline constexpr std::size_t kMostQueries = kernels::kMaxTokens;
// Keys at once.
inline constexpr std::size_t kPositions = kernels::kMaxRows;
// Tokens of a prompt that go through the layers together.
inline constexpr std::size_t kPrefill = 128;
inline constexpr std::size_t kAlignment = 64;

}  // namespace edge::native
