// memory_ffn against the formula in double precision, with every instruction set of this machine.
#include "edge_runtime/memory_ffn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "edge_runtime/isa.h"
#include "memory_blocks.h"

namespace edge {
namespace {

// Threads that take the tasks in random order.
class ShuffledThreads final : public Parallel {
 public:
  ShuffledThreads(std::size_t threads, unsigned seed) : threads_(threads), random_(seed) {}
  std::size_t threads() const override { return threads_; }
  void run(std::size_t count, TaskRef task) override {
    std::vector<std::size_t> order(count);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::shuffle(order.begin(), order.end(), random_);
    std::atomic<std::size_t> next = 0;
    std::vector<std::thread> team;
    for (std::size_t i = 0; i < threads_; ++i) {
      team.emplace_back([&] {
        for (std::size_t at = next++; at < count; at = next++) task(order[at]);
      });
    }
    for (std::thread& thread : team) thread.join();
  }

 private:
  std::size_t threads_;
  std::mt19937 random_;
};

struct Expected {
  std::vector<double> y;
  std::vector<double> bound;  // how far a result may be from y
};

double scale_of(const TestRows& rows, std::size_t row, std::size_t column, std::size_t d) {
  const std::byte* const scales = rows.scales.data() + row * row_scale_bytes(rows.dtype, d);
  if (rows.dtype == DType::kI8) {
    float scale = 0;
    std::memcpy(&scale, scales, sizeof scale);
    return scale;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, scales + column / kI4Group * sizeof bits, sizeof bits);
  return f16_to_f32(bits);
}

// The formula, and the bound that memory_ffn.h states.
Expected formula(const std::vector<TestRows>& blocks, const std::vector<float>& x, std::size_t d) {
  constexpr double kSum = 1e-6;  // of the sum of the magnitudes
  const std::size_t tokens = x.size() / d;
  Expected expected{std::vector<double>(x.size(), 0.0), std::vector<double>(x.size(), 0.0)};
  for (const TestRows& block : blocks) {
    const std::size_t r = block.rows / 3;
    const bool quantised = block.dtype == DType::kI8 || block.dtype == DType::kI4;
    for (std::size_t t = 0; t < tokens; ++t) {
      double largest = 0;
      for (std::size_t i = 0; i < d; ++i) largest = std::max(largest, std::fabs(double{x[t * d + i]}));
      const double step = quantised ? largest * 0x1p-16 : 0;
      const auto product = [&](std::size_t row, double& error) {
        double sum = 0;
        for (std::size_t i = 0; i < d; ++i) {
          const double w = block.values[row * d + i];
          sum += w * x[t * d + i];
          error += std::fabs(w) * (step + kSum * std::fabs(x[t * d + i]));
        }
        return sum;
      };
      std::vector<double> weight(d, 0.0);    // the largest h * scale, of which 16 bits are kept
      std::vector<double> integers(d, 0.0);  // the sum of their magnitudes
      for (std::size_t row = 0; row < r; ++row) {
        double gate_error = 0;
        double up_error = 0;
        const double gate = product(row, gate_error);
        const double up = product(r + row, up_error);
        const double silu = gate / (1 + std::exp(-gate));
        const double h = silu * up;
        const double steepest = 1.1;  // of silu
        const double h_error = steepest * gate_error * (std::fabs(up) + up_error) + std::fabs(silu) * up_error;
        for (std::size_t i = 0; i < d; ++i) {
          const double w = block.values[(2 * r + row) * d + i];
          expected.y[t * d + i] += h * w;
          expected.bound[t * d + i] += (h_error + kSum * std::fabs(h)) * std::fabs(w);
          if (quantised) {
            const double s = scale_of(block, 2 * r + row, i, d);
            weight[i] = std::max(weight[i], (std::fabs(h) + h_error) * s);
            integers[i] += s == 0 ? 0 : std::fabs(w) / s;
          }
        }
      }
      for (std::size_t i = 0; i < d; ++i) expected.bound[t * d + i] += 0x1p-16 * 1.01 * weight[i] * integers[i];
    }
  }
  return expected;
}

std::vector<float> run(const std::vector<TestRows>& blocks, const std::vector<float>& x, std::size_t d,
                       Parallel& parallel = serial()) {
  std::vector<MemoryRows> rows;
  for (const TestRows& block : blocks) rows.push_back(as_block(block));
  const std::size_t tokens = x.size() / d;
  std::vector<float> y(tokens * d, std::numeric_limits<float>::quiet_NaN());
  std::vector<float> scratch(memory_ffn_scratch(rows, tokens, d), std::numeric_limits<float>::quiet_NaN());
  memory_ffn(rows, x.data(), tokens, d, y.data(), scratch, parallel);
  return y;
}

// One to three blocks of random r and dtype.
std::vector<TestRows> random_blocks(std::size_t d, std::mt19937& random) {
  std::vector<TestRows> blocks;
  for (std::size_t count = 1 + random() % 3; count > 0; --count) {
    const DType dtype = kAllDTypes[random() % (d % kI4Group == 0 ? 5 : 4)];
    blocks.push_back(make_rows(dtype, 3 * (1 + random() % 40), d, random));
  }
  return blocks;
}

class MemoryFfn : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { ASSERT_TRUE(set_isa(GetParam())); }
  void TearDown() override { ASSERT_TRUE(set_isa(supported_isas().back())); }
  std::mt19937 random_{7};
};

std::string isa_name(const testing::TestParamInfo<Isa>& info) { return std::string(name(info.param)); }

INSTANTIATE_TEST_SUITE_P(, MemoryFfn, testing::ValuesIn(supported_isas()), isa_name);

TEST_P(MemoryFfn, EqualsTheFormulaForRandomShapesAndDtypes) {
  for (int trial = 0; trial < 60; ++trial) {
    const std::size_t d = trial % 2 == 0 ? 32 * (1 + random_() % 5) : 1 + random_() % 150;
    const std::size_t tokens = trial % 3 == 0 ? 1 : 1 + random_() % 40;
    const auto blocks = random_blocks(d, random_);
    const auto x = random_floats(tokens * d, random_);
    const auto y = run(blocks, x, d);
    const Expected expected = formula(blocks, x, d);
    for (std::size_t i = 0; i < y.size(); ++i) {
      ASSERT_LE(std::fabs(y[i] - expected.y[i]), expected.bound[i] + 1e-30) << "trial " << trial << " d " << d;
    }
  }
}

TEST_P(MemoryFfn, ATokenIsTheSameWhateverTheThreadsAndTheOtherTokens) {
  for (const std::size_t d : {64, 37}) {
    std::vector<TestRows> blocks = random_blocks(d, random_);
    blocks.push_back(make_rows(DType::kI8, 3 * 257, d, random_));  // more than one chunk's most
    blocks.push_back(make_rows(DType::kF16, 3, d, random_));       // r = 1
    const auto x = random_floats(257 * d, random_);
    std::vector<float> alone;
    for (std::size_t t = 0; t < 257; ++t) {
      const auto begin = x.begin() + static_cast<std::ptrdiff_t>(t * d);
      const auto y = run(blocks, {begin, begin + static_cast<std::ptrdiff_t>(d)}, d);
      alone.insert(alone.end(), y.begin(), y.end());
    }
    for (const std::size_t tokens : {1, 2, 3, 4, 5, 15, 16, 17, 33, 257}) {
      for (const std::size_t threads : {1, 2, 3, 7}) {
        ShuffledThreads team(threads, static_cast<unsigned>(tokens));
        const std::vector<float> some(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(tokens * d));
        const auto y = run(blocks, some, d, team);
        ASSERT_TRUE(std::equal(y.begin(), y.end(), alone.begin())) << tokens << " tokens, " << threads << " threads";
      }
    }
  }
}

TEST_P(MemoryFfn, NoBlocksGiveZeros) {
  EXPECT_EQ(run({}, std::vector<float>(6, 1.0F), 3), std::vector<float>(6, 0.0F));
}

TEST_P(MemoryFfn, ATokenThatIsNoNumberGivesNoNumbersAndLeavesTheOthersAlone) {
  constexpr std::size_t kD = 64;
  for (const DType dtype : kAllDTypes) {
    const std::vector<TestRows> blocks = {make_rows(dtype, 12, kD, random_)};
    const auto clean = random_floats(5 * kD, random_);
    const auto expected = run(blocks, clean, kD);
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      auto x = clean;
      x[kD + 7] = value;  // of the second token
      const auto y = run(blocks, x, kD);
      for (std::size_t i = 0; i < y.size(); ++i) {
        if (i / kD == 1) {
          EXPECT_FALSE(std::isfinite(y[i])) << name(dtype);
        } else {
          EXPECT_EQ(y[i], expected[i]) << name(dtype);
        }
      }
    }
  }
}

}  // namespace
}  // namespace edge
