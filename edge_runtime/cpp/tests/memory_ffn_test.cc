// memory_ffn against the formula in double precision.
#include "edge_runtime/memory_ffn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace edge {
namespace {

struct TestBlock {
  MemoryRows rows;
  std::vector<std::byte> data;
  std::vector<std::byte> scales;
  std::vector<float> values;  // [3, r, d] as the dtype holds them
};

TestBlock make_block(DType dtype, std::size_t r, std::size_t d, std::mt19937& random) {
  TestBlock block;
  block.values.resize(3 * r * d);
  block.data.resize(3 * r * row_bytes(dtype, d));
  block.scales.resize(3 * r * row_scale_bytes(dtype, d));
  std::normal_distribution<float> normal(0, 0.3F);
  for (std::size_t row = 0; row < 3 * r; ++row) {
    const std::span values(block.values.data() + row * d, d);
    for (float& value : values) value = normal(random);
    std::byte* data = block.data.data() + row * row_bytes(dtype, d);
    std::byte* scales = block.scales.data() + row * row_scale_bytes(dtype, d);
    EXPECT_TRUE(quantize_row(dtype, values, data, scales));
    dequantize_row(dtype, data, scales, values);
  }
  block.rows = {dtype, r, block.data.data(), block.scales.empty() ? nullptr : block.scales.data()};
  return block;
}

std::vector<double> reference(const std::vector<TestBlock>& blocks, const std::vector<float>& x, std::size_t tokens,
                              std::size_t d) {
  std::vector<double> y(tokens * d, 0.0);
  for (const TestBlock& block : blocks) {
    const std::size_t r = block.rows.rows;
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t row = 0; row < r; ++row) {
        double gate = 0;
        double up = 0;
        for (std::size_t i = 0; i < d; ++i) {
          gate += static_cast<double>(block.values[row * d + i]) * x[t * d + i];
          up += static_cast<double>(block.values[(r + row) * d + i]) * x[t * d + i];
        }
        const double h = gate / (1 + std::exp(-gate)) * up;
        for (std::size_t i = 0; i < d; ++i) y[t * d + i] += h * block.values[(2 * r + row) * d + i];
      }
    }
  }
  return y;
}

std::vector<float> run(const std::vector<TestBlock>& blocks, const std::vector<float>& x, std::size_t tokens,
                       std::size_t d) {
  std::vector<MemoryRows> rows;
  for (const TestBlock& block : blocks) rows.push_back(block.rows);
  std::vector<float> y(tokens * d, -1.0F);
  std::vector<float> scratch(memory_ffn_scratch(rows, tokens, d));
  memory_ffn(rows, x.data(), tokens, d, y.data(), scratch);
  return y;
}

TEST(MemoryFfn, EqualsTheFormulaForRandomShapesAndDtypes) {
  std::mt19937 random(7);
  const std::vector<DType> dtypes = {DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kI4};
  for (int trial = 0; trial < 60; ++trial) {
    const bool grouped = trial % 2 == 0;  // i4 needs rows of a multiple of 32
    const std::size_t d = grouped ? 32 * (1 + random() % 5) : 1 + random() % 150;
    const std::size_t tokens = 1 + random() % 65;
    std::vector<TestBlock> blocks;
    for (std::size_t count = 1 + random() % 3; count > 0; --count) {
      blocks.push_back(make_block(dtypes[random() % (grouped ? 5 : 4)], 1 + random() % 40, d, random));
    }
    std::normal_distribution<float> normal;
    std::vector<float> x(tokens * d);
    for (float& value : x) value = normal(random);
    const auto y = run(blocks, x, tokens, d);
    const auto expected = reference(blocks, x, tokens, d);
    for (std::size_t i = 0; i < y.size(); ++i) {
      ASSERT_NEAR(y[i], expected[i], 1e-4 * (1 + std::fabs(expected[i]))) << "trial " << trial << " d " << d;
    }
  }
}

TEST(MemoryFfn, NoBlocksGiveZeros) {
  EXPECT_EQ(run({}, std::vector<float>(6, 1.0F), 2, 3), std::vector<float>(6, 0.0F));
}

TEST(MemoryFfn, NanAndInfinityAreNotHidden) {
  std::mt19937 random(3);
  const std::vector<TestBlock> blocks = {make_block(DType::kF32, 4, 40, random)};
  std::vector<float> x(80, 0.5F);
  x[45] = std::numeric_limits<float>::quiet_NaN();  // of the second token
  const auto y = run(blocks, x, 2, 40);
  EXPECT_TRUE(std::isfinite(y[0]));
  EXPECT_TRUE(std::isnan(y[40]));
}

}  // namespace
}  // namespace edge
