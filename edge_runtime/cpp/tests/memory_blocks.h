// Random blocks for the tests of memory_ffn and its kernels, with the values that their bytes stand for.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <span>
#include <vector>

#include "edge_runtime/dtype.h"
#include "edge_runtime/memory_ffn.h"

namespace edge {

inline constexpr std::array kAllDTypes = {DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kI4};

struct TestRows {
  DType dtype = DType::kF32;
  std::size_t rows = 0;
  std::vector<std::byte> data;
  std::vector<std::byte> scales;
  std::vector<float> values;  // [rows, d] as the dtype holds them

  const std::byte* scale_data() const { return scales.empty() ? nullptr : scales.data(); }
};

inline TestRows make_rows(DType dtype, std::size_t rows, std::size_t d, std::mt19937& random, float deviation = 0.3F) {
  TestRows made{dtype, rows, {}, {}, {}};
  made.values.resize(rows * d);
  made.data.resize(rows * row_bytes(dtype, d));
  made.scales.resize(rows * row_scale_bytes(dtype, d));
  std::normal_distribution<float> normal(0, deviation);
  for (std::size_t row = 0; row < rows; ++row) {
    const std::span values(made.values.data() + row * d, d);
    for (float& value : values) value = normal(random);
    std::byte* data = made.data.data() + row * row_bytes(dtype, d);
    std::byte* scales = made.scales.data() + row * row_scale_bytes(dtype, d);
    EXPECT_TRUE(quantize_row(dtype, values, data, scales));
    dequantize_row(dtype, data, scales, values);
  }
  return made;
}

// The block of r rows of each of W1, W2, W3.
inline MemoryRows as_block(const TestRows& rows) {
  return {rows.dtype, rows.rows / 3, rows.data.data(), rows.scale_data()};
}

inline std::vector<float> random_floats(std::size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace edge
