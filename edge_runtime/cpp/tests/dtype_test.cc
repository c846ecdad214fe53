#include "edge_runtime/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace edge {
namespace {

TEST(DType, NamesRoundTrip) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kI4}) {
    EXPECT_EQ(parse_dtype(name(dtype)), dtype);
  }
  EXPECT_EQ(parse_dtype("f64"), std::nullopt);
  EXPECT_EQ(parse_dtype(""), std::nullopt);
}

TEST(DType, EveryF16SurvivesF32) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = f16_to_f32(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value))));
    } else {
      ASSERT_EQ(f32_to_f16(value), half) << bits;
    }
  }
}

TEST(DType, F16RoundsToNearestEven) {
  EXPECT_EQ(f32_to_f16(1.0F + 0x1p-11F), 0x3C00);             // half way: to even
  EXPECT_EQ(f32_to_f16(1.0F + 3 * 0x1p-11F), 0x3C02);         // half way: to even
  EXPECT_EQ(f32_to_f16(1.0F + 0x1p-11F + 0x1p-20F), 0x3C01);  // above half
  EXPECT_EQ(f32_to_f16(65519.996F), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0F), 0x7C00);
  EXPECT_EQ(f32_to_f16(0x1p-25F), 0);  // half of the smallest subnormal: to even
  EXPECT_EQ(f32_to_f16(-0.0F), 0x8000);
}

std::vector<float> round_trip(DType dtype, const std::vector<float>& row) {
  std::vector<std::byte> data(row_bytes(dtype, row.size()));
  std::vector<std::byte> scales(row_scale_bytes(dtype, row.size()));
  EXPECT_TRUE(quantize_row(dtype, row, data.data(), scales.data()));
  std::vector<float> out(row.size());
  dequantize_row(dtype, data.data(), scales.data(), out);
  return out;
}

TEST(DType, ErrorsAreWithinHalfAStep) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> row(96);
  for (float& value : row) value = normal(random);
  float largest = 0;
  for (const float value : row) largest = std::max(largest, std::fabs(value));
  const auto f32 = round_trip(DType::kF32, row);
  const auto f16 = round_trip(DType::kF16, row);
  const auto bf16 = round_trip(DType::kBF16, row);
  const auto i8 = round_trip(DType::kI8, row);
  const auto i4 = round_trip(DType::kI4, row);
  for (std::size_t i = 0; i < row.size(); ++i) {
    EXPECT_EQ(f32[i], row[i]);
    EXPECT_NEAR(f16[i], row[i], std::fabs(row[i]) * 0x1p-11F + 0x1p-25F);
    EXPECT_NEAR(bf16[i], row[i], std::fabs(row[i]) * 0x1p-8F);
    EXPECT_NEAR(i8[i], row[i], largest / 127 / 2 * 1.001F);
    EXPECT_NEAR(i4[i], row[i], largest / 7 / 2 * 1.01F);
  }
}

TEST(DType, TheLargestFloatStaysFinite) {
  const std::vector<float> row = {std::numeric_limits<float>::max(), -1.0F};
  std::vector<std::byte> data(row_bytes(DType::kI8, row.size()));
  std::vector<std::byte> scales(row_scale_bytes(DType::kI8, row.size()));
  ASSERT_TRUE(quantize_row(DType::kI8, row, data.data(), scales.data()));
  std::vector<float> back(row.size());
  dequantize_row(DType::kI8, data.data(), scales.data(), back);
  EXPECT_TRUE(std::isfinite(back[0]));
  EXPECT_GT(back[0], 0.99F * row[0]);
  EXPECT_EQ(back[1], 0.0F);
}

TEST(DType, ZerosStayZero) {
  for (const DType dtype : {DType::kI8, DType::kI4}) {
    EXPECT_EQ(round_trip(dtype, std::vector<float>(64, 0.0F)), std::vector<float>(64, 0.0F));
  }
}

TEST(DType, RefusesWhatItCannotHold) {
  std::vector<std::byte> data(256);
  std::vector<std::byte> scales(64);
  std::vector<float> row(32, 1.0F);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kI4}) {
    row[5] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(quantize_row(dtype, row, data.data(), scales.data()).error().code, ErrorCode::kInvalidArgument);
    row[5] = std::numeric_limits<float>::infinity();
    EXPECT_EQ(quantize_row(dtype, row, data.data(), scales.data()).error().code, ErrorCode::kInvalidArgument);
  }
  row[5] = 1e6F;
  EXPECT_FALSE(quantize_row(DType::kF16, row, data.data(), scales.data()));
  EXPECT_FALSE(quantize_row(DType::kI4, row, data.data(), scales.data()));
  EXPECT_TRUE(quantize_row(DType::kBF16, row, data.data(), scales.data()));
  row[5] = std::numeric_limits<float>::max();
  EXPECT_FALSE(quantize_row(DType::kBF16, row, data.data(), scales.data()));
}

TEST(DType, I4PacksTheSecondHalfOfAGroupIntoHighNibbles) {
  std::vector<float> row(32, 0.0F);
  row[0] = 7.0F;    // q = 15, low nibble of byte 0
  row[16] = -7.0F;  // q = 1, high nibble of byte 0
  std::vector<std::byte> data(16);
  std::vector<std::byte> scales(2);
  ASSERT_TRUE(quantize_row(DType::kI4, row, data.data(), scales.data()));
  EXPECT_EQ(data[0], std::byte{0x1F});
  EXPECT_EQ(data[1], std::byte{0x88});
  EXPECT_EQ(scales[1], std::byte{0x3C});  // f16 1.0
}

}  // namespace
}  // namespace edge
