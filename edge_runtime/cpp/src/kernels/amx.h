// What the kernels in AMX tiles share.
#pragma once

#include <immintrin.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace edge::kernels {

inline constexpr std::size_t kTileRows = 16;   // the most
inline constexpr std::size_t kTileBytes = 64;  // of a row, the most
inline constexpr std::size_t kTileWord = 4;    // bytes that a product adds up

// LDTILECFG's operand.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

// GCC does not know that a tile is loaded out of memory: what was written before must have been.
static inline void before_tiles() { std::atomic_signal_fence(std::memory_order_seq_cst); }

}  // namespace edge::kernels
