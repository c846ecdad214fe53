// The packed products of every instruction set against the reference, bit by bit, and the reference against the rows
// that the writer packs.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/packed.h"
#include "native/packing.h"

namespace edge::testing {
namespace {

using kernels::PackedGroup;
using kernels::PackedKernels;

constexpr DType kDTypes[] = {DType::kI8, DType::kI4};

PackedKernels::Multiply multiply_of(const PackedKernels& kernels, DType dtype) {
  return dtype == DType::kI4 ? kernels.i4 : kernels.i8;
}

// Blocks of every bit pattern that a file may hold, and finite scales.
struct Blocks {
  Blocks(DType dtype, std::size_t count, std::size_t columns, std::mt19937& random)
      : data(count * kernels::packed_block_bytes(dtype, columns)),
        scales(count * kernels::packed_scale_bytes(dtype, columns)) {
    for (std::byte& byte : data) byte = static_cast<std::byte>(random());
    std::uniform_real_distribution<float> some(-0.1F, 0.1F);
    for (std::size_t at = 0; at < scales.size(); at += dtype == DType::kI4 ? 2 : 4) {
      if (dtype == DType::kI4) {
        const std::uint16_t bits = f32_to_f16(some(random));
        std::memcpy(scales.data() + at, &bits, sizeof bits);
      } else {
        const float scale = some(random);
        std::memcpy(scales.data() + at, &scale, sizeof scale);
      }
    }
  }
  std::vector<std::byte> data;
  std::vector<std::byte> scales;
};

std::vector<float> some_values(std::size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<PackedGroup> quantised(const PackedKernels& kernels, const std::vector<float>& x, std::size_t columns) {
  const std::size_t groups = kernels::packed_groups(columns);
  const std::size_t tokens = x.size() / columns;
  std::vector<PackedGroup> all(tokens * groups);
  for (std::size_t t = 0; t < tokens; ++t) kernels.quantise(x.data() + t * columns, columns, all.data() + t * groups);
  return all;
}

class PackedKernelsTest : public ::testing::TestWithParam<Isa> {
 protected:
  const PackedKernels& kernels() const { return *kernels::packed_kernels_of(GetParam()); }
};

TEST_P(PackedKernelsTest, QuantisesAsTheReferenceDoes) {
  std::mt19937 random(1);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const std::size_t columns : {1, 7, 32, 40, 63, 64, 320}) {
    auto x = some_values(columns, random);
    const std::size_t middle = columns / 2;
    for (const float special : {1.0F, 0.0F, kNan, -kInfinity, 1e30F, 1e-38F, 0x1p-101F}) {
      x[middle] = special;
      if (special == 0x1p-101F) x.assign(columns, special);
      const auto wanted = quantised(kernels::kScalarPackedKernels, x, columns);
      const auto found = quantised(kernels(), x, columns);
      for (std::size_t g = 0; g < wanted.size(); ++g) {
        for (std::size_t i = 0; i < kernels::kPackedColumns; ++i) ASSERT_EQ(found[g].q[i], wanted[g].q[i]) << special;
        ASSERT_EQ(std::isnan(found[g].scale), std::isnan(wanted[g].scale));
        if (!std::isnan(wanted[g].scale)) {
          ASSERT_EQ(found[g].scale, wanted[g].scale) << special;
        }
        ASSERT_EQ(found[g].start_i8, wanted[g].start_i8);
        ASSERT_EQ(found[g].start_i4, wanted[g].start_i4);
      }
    }
  }
}

TEST_P(PackedKernelsTest, ProductsEqualTheReferenceBitByBit) {
  std::mt19937 random(2);
  for (const DType dtype : kDTypes) {
    for (const std::size_t columns : {32, 96, 512}) {
      for (const std::size_t count : {1, 3}) {
        for (const std::size_t tokens : {1, 2, 7, 8, 9, 16, 37}) {
          const Blocks blocks(dtype, count, columns, random);
          const auto x = quantised(kernels(), some_values(tokens * columns, random), columns);
          const std::size_t stride = count * kernels::kPackedRows + 5;
          std::vector<float> wanted(tokens * stride, 1);
          std::vector<float> found = wanted;
          const kernels::PackedBlocks of = {blocks.data.data(), blocks.scales.data(), count};
          const kernels::PackedTokens by = {x.data(), kernels::packed_groups(columns), tokens};
          multiply_of(kernels::kScalarPackedKernels, dtype)(of, by, wanted.data(), stride);
          multiply_of(kernels(), dtype)(of, by, found.data(), stride);
          ASSERT_EQ(found, wanted) << name(dtype) << " " << columns << " " << count << " " << tokens;
        }
      }
    }
  }
}

// The largest weights with the largest activations: what saturates or overflows would show.
TEST_P(PackedKernelsTest, ExtremesAreExact) {
  constexpr std::size_t kColumns = 64;
  constexpr std::size_t kTokens = 17;
  for (const DType dtype : kDTypes) {
    for (const int byte : {0x00, 0x7F, 0x80, 0xFF}) {
      for (const float sign : {-1.0F, 1.0F}) {
        std::mt19937 random(3);
        Blocks blocks(dtype, 1, kColumns, random);
        blocks.data.assign(blocks.data.size(), static_cast<std::byte>(byte));
        const auto x = quantised(kernels(), std::vector<float>(kTokens * kColumns, 3.0F * sign), kColumns);
        std::vector<float> wanted(kTokens * kernels::kPackedRows);
        std::vector<float> found = wanted;
        const kernels::PackedBlocks of = {blocks.data.data(), blocks.scales.data(), 1};
        multiply_of(kernels::kScalarPackedKernels, dtype)(of, {x.data(), 2, kTokens}, wanted.data(),
                                                          kernels::kPackedRows);
        multiply_of(kernels(), dtype)(of, {x.data(), 2, kTokens}, found.data(), kernels::kPackedRows);
        ASSERT_EQ(found, wanted) << name(dtype) << " " << byte;
      }
    }
  }
}

TEST_P(PackedKernelsTest, ATokenThatIsNoNumberGivesNoNumbersAndLeavesTheOthersAlone) {
  constexpr std::size_t kColumns = 64;
  constexpr std::size_t kTokens = 20;
  std::mt19937 random(4);
  for (const DType dtype : kDTypes) {
    const Blocks blocks(dtype, 1, kColumns, random);
    auto x = some_values(kTokens * kColumns, random);
    x[3 * kColumns + 40] = std::numeric_limits<float>::infinity();
    const auto groups = quantised(kernels(), x, kColumns);
    std::vector<float> y(kTokens * kernels::kPackedRows);
    multiply_of(kernels(), dtype)({blocks.data.data(), blocks.scales.data(), 1}, {groups.data(), 2, kTokens}, y.data(),
                                  kernels::kPackedRows);
    for (std::size_t i = 0; i < y.size(); ++i) ASSERT_EQ(std::isnan(y[i]), i / kernels::kPackedRows == 3) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, PackedKernelsTest, ::testing::ValuesIn(supported_isas()),
                         [](const auto& of) { return std::string(name(of.param)); });

// The layout itself: rows of quantize_row, packed, meet a token as their values do.
TEST(PackingTest, PackedRowsMeanWhatTheRowsMean) {
  std::mt19937 random(5);
  for (const DType dtype : kDTypes) {
    for (const std::size_t columns :
         {std::size_t{32}, std::size_t{96}, dtype == DType::kI4 ? std::size_t{64} : std::size_t{50}}) {
      std::vector<std::byte> data(kernels::packed_block_bytes(dtype, columns));
      std::vector<std::byte> scales(kernels::packed_scale_bytes(dtype, columns));
      std::vector<std::vector<float>> rows;
      for (std::size_t row = 0; row < kernels::kPackedRows; ++row) {
        rows.push_back(some_values(columns, random));
        std::vector<std::byte> plain(row_bytes(dtype, columns));
        std::vector<std::byte> plain_scales(row_scale_bytes(dtype, columns));
        ASSERT_TRUE(quantize_row(dtype, rows[row], plain.data(), plain_scales.data()));
        dequantize_row(dtype, plain.data(), plain_scales.data(), rows[row]);
        native::pack_row(dtype, plain.data(), plain_scales.data(), columns, row, data.data(), scales.data());
        std::vector<std::byte> unpacked(plain.size());
        std::vector<std::byte> unpacked_scales(plain_scales.size());
        native::unpack_row(dtype, data.data(), scales.data(), columns, row, unpacked.data(), unpacked_scales.data());
        ASSERT_EQ(unpacked, plain);
        ASSERT_EQ(unpacked_scales, plain_scales);
      }
      const auto x = some_values(columns, random);
      const auto groups = quantised(kernels::kScalarPackedKernels, x, columns);
      std::vector<float> y(kernels::kPackedRows);
      multiply_of(kernels::kScalarPackedKernels, dtype)({data.data(), scales.data(), 1},
                                                        {groups.data(), groups.size(), 1}, y.data(), 0);
      for (std::size_t row = 0; row < kernels::kPackedRows; ++row) {
        double wanted = 0;
        double bound = 0;
        for (std::size_t i = 0; i < columns; ++i) {
          const PackedGroup& group = groups[i / kernels::kPackedColumns];
          const double rounded = static_cast<double>(group.scale) * group.q[i % kernels::kPackedColumns];
          ASSERT_NEAR(rounded, static_cast<double>(x[i]), static_cast<double>(group.scale) * 0.501);
          wanted += static_cast<double>(rows[row][i]) * rounded;
          bound += std::fabs(static_cast<double>(rows[row][i]) * rounded);
        }
        ASSERT_NEAR(static_cast<double>(y[row]), wanted, 1e-6 * bound);
      }
    }
  }
}

}  // namespace
}  // namespace edge::testing
