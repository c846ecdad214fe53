#include "compiler_vectorised.h"

#include <algorithm>
#include <cmath>
#include <vector>

// The hot loops are compiled for several instruction sets and chosen at load time; arm64's baseline has NEON already.
#if defined(__x86_64__) && defined(__linux__) && !defined(__clang__)
#define EDGE_CLONES __attribute__((target_clones("default", "arch=x86-64-v3")))
#else
#define EDGE_CLONES
#endif

namespace edge::bench {
namespace {

constexpr std::size_t kTokenTile = 16;

EDGE_CLONES float dot(const float* a, const float* b, std::size_t n) {
  constexpr std::size_t kLanes = 16;
  float partial[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) partial[lane] += a[i + lane] * b[i + lane];
  }
  float sum = 0;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (const float p : partial) sum += p;
  return sum;
}

EDGE_CLONES void add_scaled(float* y, float factor, const float* row, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] += factor * row[i];
}

}  // namespace

void compiler_vectorised(std::span<const MemoryRows> blocks, const float* x, std::size_t tokens, std::size_t d,
                         float* y) {
  std::fill_n(y, tokens * d, 0.0F);
  std::vector<float> buffer(d);
  for (std::size_t first = 0; first < tokens; first += kTokenTile) {
    const std::size_t count = std::min(kTokenTile, tokens - first);
    for (const MemoryRows& block : blocks) {
      const auto row = [&](std::size_t index) {
        dequantize_row(block.dtype, block.data + index * row_bytes(block.dtype, d),
                       block.scales == nullptr ? nullptr : block.scales + index * row_scale_bytes(block.dtype, d),
                       buffer);
        return buffer.data();
      };
      float h[kTokenTile];
      for (std::size_t r = 0; r < block.rows; ++r) {
        const float* gate = row(r);
        for (std::size_t t = 0; t < count; ++t) {
          const float v = dot(gate, x + (first + t) * d, d);
          h[t] = v / (1.0F + std::exp(-v));
        }
        const float* up = row(block.rows + r);
        for (std::size_t t = 0; t < count; ++t) h[t] *= dot(up, x + (first + t) * d, d);
        const float* down = row(2 * block.rows + r);
        for (std::size_t t = 0; t < count; ++t) add_scaled(y + (first + t) * d, h[t], down, d);
      }
    }
  }
}

}  // namespace edge::bench
