// The reference, which all instruction sets equal bit by bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/packed.h"

namespace edge::kernels {
namespace {

void quantise(const float* x, std::size_t d, PackedGroup* out) {
  for (std::size_t begin = 0; begin < d; begin += kPackedColumns, ++out) {
    const std::size_t count = std::min(kPackedColumns, d - begin);
    float largest = 0;
    bool finite = true;
    for (std::size_t i = 0; i < count; ++i) {
      finite = finite && std::isfinite(x[begin + i]);
      largest = std::fmax(largest, std::fabs(x[begin + i]));
    }
    *out = {};
    if (!finite) out->scale = std::numeric_limits<float>::quiet_NaN();
    if (!finite || largest < kSmallestGroup) continue;
    constexpr auto kLimit = static_cast<float>(kPackedLimit);
    const float inverse = kLimit / largest;
    out->scale = largest / kLimit;
    int sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      out->q[i] = static_cast<std::int8_t>(std::nearbyint(x[begin + i] * inverse));
      sum += out->q[i];
    }
    out->start_i8 = -128 * sum;
    out->start_i4 = -8 * sum;
  }
}

template <DType kType>
int weight(const std::byte* group, std::size_t row, std::size_t column) {
  constexpr std::size_t kHalf = kPackedColumns / 2;
  const std::size_t stored = kType == DType::kI4 ? column % kHalf : column;
  const std::byte byte = group[(stored / kPackedWord * kPackedRows + row) * kPackedWord + stored % kPackedWord];
  if constexpr (kType == DType::kI8) {
    return static_cast<std::int8_t>(byte);
  } else {
    const auto both = static_cast<unsigned>(byte);
    return static_cast<int>(column < kHalf ? both & 15U : both >> 4U) - 8;
  }
}

template <DType kType>
float product(const PackedBlocks& blocks, std::size_t block, std::size_t row, const PackedGroup* token,
              std::size_t groups) {
  const std::size_t columns = groups * kPackedColumns;
  const std::byte* const data = blocks.data + block * packed_block_bytes(kType, columns);
  const std::byte* const scales = blocks.scales + block * packed_scale_bytes(kType, columns);
  const std::size_t group_bytes = packed_block_bytes(kType, kPackedColumns);
  float y = 0;
  for (std::size_t g = 0; g < groups; ++g) {
    int sum = 0;
    for (std::size_t i = 0; i < kPackedColumns; ++i)
      sum += weight<kType>(data + g * group_bytes, row, i) * token[g].q[i];
    // NOLINTNEXTLINE(misc-const-correctness): assigned where the rows are i4
    float scale = token[g].scale;
    if constexpr (kType == DType::kI4) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, scales + (g * kPackedRows + row) * sizeof bits, sizeof bits);
      scale *= f16_to_f32(bits);
    }
    y = std::fma(static_cast<float>(sum), scale, y);
  }
  if constexpr (kType == DType::kI8) {
    float scale = 0;
    std::memcpy(&scale, scales + row * sizeof scale, sizeof scale);
    y *= scale;
  }
  return y;
}

template <DType kType>
void multiply(const PackedBlocks& blocks, const PackedTokens& tokens, float* y, std::size_t stride) {
  for (std::size_t t = 0; t < tokens.count; ++t) {
    for (std::size_t row = 0; row < blocks.count * kPackedRows; ++row) {
      y[t * stride + row] =
          product<kType>(blocks, row / kPackedRows, row % kPackedRows, tokens.data + t * tokens.groups, tokens.groups);
    }
  }
}

}  // namespace

const PackedKernels kScalarPackedKernels = {quantise, multiply<DType::kI8>, multiply<DType::kI4>};

}  // namespace edge::kernels
