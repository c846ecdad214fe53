#include "edge_runtime/memory_ffn.h"

#include <algorithm>
#include <cmath>

// The hot loops are compiled for several instruction sets and chosen at load time; arm64's baseline has NEON already.
#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__)
#define EDGE_CLONES __attribute__((target_clones("default", "arch=x86-64-v3")))
#else
#define EDGE_CLONES
#endif

namespace edge {
namespace {

// Tokens that share one pass over the weights: enough to amortise the dequantised row, few enough for their h to stay
// in L1.
constexpr std::size_t kTokenTile = 16;

EDGE_CLONES float dot(const float* a, const float* b, std::size_t n) {
  // Independent partial sums: without -ffast-math the compiler may not reorder one sum, so it could not vectorise it.
  constexpr std::size_t kLanes = 16;
  float partial[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      partial[lane] += a[i + lane] * b[i + lane];
    }
  }
  float sum = 0;
  for (; i < n; ++i) {
    sum += a[i] * b[i];
  }
  for (const float p : partial) {
    sum += p;
  }
  return sum;
}

EDGE_CLONES void add_scaled(float* y, float factor, const float* row, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    y[i] += factor * row[i];
  }
}

float silu(float v) { return v / (1.0F + std::exp(-v)); }

// The rows of one matrix (0, 1, 2 = W1, W2, W3) of a block's layer, dequantised one at a time.
class Matrix {
 public:
  Matrix(const MemoryRows& block, std::size_t matrix, std::size_t d)
      : dtype_(block.dtype),
        d_(d),
        row_bytes_(row_bytes(block.dtype, d)),
        scale_bytes_(row_scale_bytes(block.dtype, d)),
        data_(block.data + matrix * block.rows * row_bytes_),
        scales_(scale_bytes_ == 0 ? nullptr : block.scales + matrix * block.rows * scale_bytes_) {}

  // The row as floats: in place for f32, else written to `buffer`, [d].
  const float* row(std::size_t index, float* buffer) const {
    const std::byte* data = data_ + index * row_bytes_;
    if (dtype_ == DType::kF32) {
      return reinterpret_cast<const float*>(data);  // layers start at multiples of 64 bytes
    }
    dequantize_row(dtype_, data, scale_bytes_ == 0 ? nullptr : scales_ + index * scale_bytes_, {buffer, d_});
    return buffer;
  }

 private:
  DType dtype_;
  std::size_t d_;
  std::size_t row_bytes_;
  std::size_t scale_bytes_;
  const std::byte* data_;
  const std::byte* scales_;
};

void add_block(const MemoryRows& block, const float* x, std::size_t tokens, std::size_t d, float* y, float* buffer) {
  const Matrix w1(block, 0, d);
  const Matrix w2(block, 1, d);
  const Matrix w3(block, 2, d);
  float h[kTokenTile];
  for (std::size_t row = 0; row < block.rows; ++row) {
    const float* gate = w1.row(row, buffer);
    for (std::size_t t = 0; t < tokens; ++t) {
      h[t] = silu(dot(gate, x + t * d, d));
    }
    const float* up = w2.row(row, buffer);
    for (std::size_t t = 0; t < tokens; ++t) {
      h[t] *= dot(up, x + t * d, d);
    }
    const float* down = w3.row(row, buffer);
    for (std::size_t t = 0; t < tokens; ++t) {
      add_scaled(y + t * d, h[t], down, d);
    }
  }
}

}  // namespace

std::size_t memory_ffn_scratch(std::span<const MemoryRows> blocks, std::size_t /*tokens*/, std::size_t d) {
  const bool dequantises =
      std::any_of(blocks.begin(), blocks.end(), [](const MemoryRows& block) { return block.dtype != DType::kF32; });
  return dequantises ? d : 0;
}

void memory_ffn(std::span<const MemoryRows> blocks, const float* x, std::size_t tokens, std::size_t d, float* y,
                std::span<float> scratch) {
  std::fill_n(y, tokens * d, 0.0F);
  for (std::size_t first = 0; first < tokens; first += kTokenTile) {
    const std::size_t count = std::min(kTokenTile, tokens - first);
    for (const MemoryRows& block : blocks) {
      add_block(block, x + first * d, count, d, y + first * d, scratch.data());
    }
  }
}

}  // namespace edge
