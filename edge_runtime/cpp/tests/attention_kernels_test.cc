// Every instruction set's attention against the scalar one, which defines the result.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "guarded.h"
#include "kernels/kernels.h"
#include "memory_blocks.h"

namespace edge::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Chunk {
  DType dtype;
  std::size_t d;
  std::size_t rows;
  std::size_t queries;

  std::size_t groups() const { return (rows + kKeysTogether - 1) / kKeysTogether; }
  std::string text() const {
    return std::string(name(dtype)) + " d " + std::to_string(d) + " rows " + std::to_string(rows) + " queries " +
           std::to_string(queries);
  }
};

class AttentionKernelsTest : public testing::TestWithParam<Isa> {
 protected:
  Chunk random_chunk() {
    const auto up_to = [&](std::size_t most) { return 1 + random_() % most; };
    return {random_() % 2 == 0 ? DType::kF32 : DType::kF16, up_to(140), up_to(kMaxRows), up_to(kMaxTokens)};
  }
  std::vector<float> floats(std::size_t n) { return random_floats(n, random_); }
  static const AttentionKernels& of(const Kernels& kernels, DType dtype) {
    return kernels.attention[static_cast<std::size_t>(dtype)];
  }

  std::vector<float> scores(const Kernels& kernels, const Chunk& chunk, const TestRows& keys,
                            const std::vector<float>& queries) {
    const Guarded data(keys.data);
    const Guarded transposed(queries);
    const Guarded out(std::vector<float>(chunk.queries * kMaxRows));
    of(kernels, chunk.dtype)
        .score(data.data(), chunk.groups(), transposed.floats(), chunk.queries, chunk.d, out.floats());
    return {out.floats(), out.floats() + chunk.queries * kMaxRows};
  }
  std::vector<float> weighed(const Kernels& kernels, const Chunk& chunk, const TestRows& values,
                             const std::vector<float>& weights, const std::vector<float>& shrink,
                             const std::vector<float>& before) {
    const Guarded data(values.data);
    const Guarded sums(before);
    of(kernels, chunk.dtype)
        .weigh(data.data(), chunk.rows, weights.data(), shrink.data(), chunk.queries, chunk.d, sums.floats());
    return {sums.floats(), sums.floats() + before.size()};
  }

  const Kernels& kernels_ = *kernels_of(GetParam());
  const Kernels& reference_ = *kernels_of(Isa::kScalar);
  std::mt19937 random_{static_cast<unsigned>(GetParam()) + 1};
};

std::string isa_name(const testing::TestParamInfo<Isa>& info) { return std::string(name(info.param)); }

INSTANTIATE_TEST_SUITE_P(, AttentionKernelsTest, testing::ValuesIn(supported_isas()), isa_name);

TEST_P(AttentionKernelsTest, ScoresAreTheScalarOnes) {
  for (int trial = 0; trial < 100; ++trial) {
    const Chunk chunk = random_chunk();
    // A row of the test's is a column of a group.
    const TestRows keys = make_rows(chunk.dtype, chunk.groups() * chunk.d, kKeysTogether, random_);
    const auto queries = floats(chunk.d * chunk.queries);
    const auto found = scores(kernels_, chunk, keys, queries);
    const auto expected = scores(reference_, chunk, keys, queries);
    for (std::size_t i = 0; i < found.size(); ++i) {
      expect_close(found[i], expected[i], 1e-5 * static_cast<double>(chunk.d), chunk.text());
    }
  }
}

TEST_P(AttentionKernelsTest, WeighedSumsAreTheScalarOnes) {
  for (int trial = 0; trial < 100; ++trial) {
    const Chunk chunk = random_chunk();
    const TestRows values = make_rows(chunk.dtype, chunk.rows, chunk.d, random_);
    const auto weights = floats(chunk.queries * kMaxRows);
    const auto before = floats(chunk.queries * chunk.d);
    auto shrink = floats(chunk.queries);
    shrink[0] = 1;
    const auto found = weighed(kernels_, chunk, values, weights, shrink, before);
    const auto expected = weighed(reference_, chunk, values, weights, shrink, before);
    for (std::size_t i = 0; i < found.size(); ++i) {
      expect_close(found[i], expected[i], 1e-5 * static_cast<double>(chunk.rows), chunk.text());
    }
  }
}

// What lets a prompt be cut anywhere: a query's bits do not depend on its neighbours, nor on rows of no weight.
TEST_P(AttentionKernelsTest, AQueryAloneHasTheSameBits) {
  for (int trial = 0; trial < 40; ++trial) {
    const Chunk chunk = random_chunk();
    const Chunk alone = {chunk.dtype, chunk.d, chunk.rows, 1};
    const TestRows keys = make_rows(chunk.dtype, chunk.groups() * chunk.d, kKeysTogether, random_);
    const TestRows values = make_rows(chunk.dtype, chunk.rows, chunk.d, random_);
    const auto queries = floats(chunk.d * chunk.queries);
    auto weights = floats(chunk.queries * kMaxRows);
    const auto shrink = floats(chunk.queries);
    const auto before = floats(chunk.queries * chunk.d);
    const std::size_t seen = 1 + random_() % chunk.rows;
    for (std::size_t q = 0; q < chunk.queries; ++q) {
      std::fill_n(weights.begin() + static_cast<std::ptrdiff_t>(q * kMaxRows + seen), kMaxRows - seen, 0.0F);
    }
    const auto all_scores = scores(kernels_, chunk, keys, queries);
    const auto all_sums = weighed(kernels_, chunk, values, weights, shrink, before);
    for (std::size_t q = 0; q < chunk.queries; ++q) {
      std::vector<float> query(chunk.d);
      for (std::size_t i = 0; i < chunk.d; ++i) query[i] = queries[i * chunk.queries + q];
      const auto part = [&](const std::vector<float>& of, std::size_t width) {
        return std::vector<float>(of.begin() + static_cast<std::ptrdiff_t>(q * width),
                                  of.begin() + static_cast<std::ptrdiff_t>((q + 1) * width));
      };
      EXPECT_EQ(scores(kernels_, alone, keys, query), part(all_scores, kMaxRows)) << chunk.text();
      const Chunk shorter = {chunk.dtype, chunk.d, seen, 1};
      EXPECT_EQ(weighed(kernels_, shorter, values, part(weights, kMaxRows), {shrink[q]}, part(before, chunk.d)),
                part(all_sums, chunk.d))
          << chunk.text() << " seen " << seen;
    }
  }
}

TEST_P(AttentionKernelsTest, WeightsAreNearTheLibrarysExponentials) {
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<float> powers = floats(kMaxRows);
    for (float& power : powers) power *= 100;
    for (std::size_t i = 0; i < kMaxRows; i += 7) powers[i] = -kInfinity;
    const float before = trial % 3 == 0 ? -kInfinity : 150 * floats(1)[0];
    const float most = std::max(before, *std::max_element(powers.begin(), powers.end()));
    std::vector<float> weights = powers;
    float total = 0;
    EXPECT_EQ(kernels_.soften(weights.data(), before, &total), most);
    double sum = 0;
    for (std::size_t i = 0; i < kMaxRows; ++i) {
      const double wanted = std::exp(static_cast<double>(powers[i] - most));
      EXPECT_NEAR(weights[i], wanted, 2.4e-7 * wanted + 1e-38) << powers[i] << " beside " << most;
      if (powers[i] - most < -104) {
        EXPECT_EQ(weights[i], 0);
      }
      sum += weights[i];
    }
    EXPECT_NEAR(total, sum, 1e-5 * sum);
  }
}

TEST_P(AttentionKernelsTest, AScoreThatIsNoNumberGivesAWeightThatIsNone) {
  std::vector<float> scores(kMaxRows, 1);
  scores[11] = std::numeric_limits<float>::quiet_NaN();
  float total = 0;
  kernels_.soften(scores.data(), -kInfinity, &total);
  EXPECT_TRUE(std::isnan(scores[11]));
  EXPECT_TRUE(std::isnan(total));
}

}  // namespace
}  // namespace edge::kernels
