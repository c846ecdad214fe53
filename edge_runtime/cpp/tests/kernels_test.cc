// Every instruction set's kernels against the scalar ones, which define the result.
#include "kernels/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "guarded.h"
#include "memory_blocks.h"

namespace edge::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Shape {
  DType dtype;
  std::size_t d;
  std::size_t rows;
  std::size_t tokens;

  std::string text() const {
    return std::string(name(dtype)) + " d " + std::to_string(d) + " rows " + std::to_string(rows) + " tokens " +
           std::to_string(tokens);
  }
};

Shape random_shape(DType dtype, std::mt19937& random) {
  const std::size_t d = dtype == DType::kI4 ? 32 * (1 + random() % 20) : 1 + random() % 600;
  return {dtype, d, 1 + random() % 13, 1 + random() % kMaxTokens};
}

// Scales as hostile as the format allows: zero, subnormal, large.
void roughen_scales(TestRows& rows, std::mt19937& random) {
  if (rows.dtype == DType::kI8) {
    constexpr std::array<float, 4> kScales = {0.0F, 1e-41F, 1e-3F, 2.0F};
    for (std::size_t i = 0; i < rows.scales.size(); i += 4) {
      std::memcpy(rows.scales.data() + i, &kScales[random() % 4], 4);
    }
  } else if (rows.dtype == DType::kI4) {
    constexpr std::array<std::uint16_t, 4> kScales = {0, 3, 0x211F, 0x4000};  // 0, 3 * 2^-24, about 0.01, 2
    for (std::size_t i = 0; i < rows.scales.size(); i += 2) {
      std::memcpy(rows.scales.data() + i, &kScales[random() % 4], 2);
    }
  }
  const std::size_t d = rows.values.size() / rows.rows;
  for (std::size_t row = 0; row < rows.rows; ++row) {
    dequantize_row(rows.dtype, rows.data.data() + row * row_bytes(rows.dtype, d),
                   rows.scales.data() + row * row_scale_bytes(rows.dtype, d), {rows.values.data() + row * d, d});
  }
}

std::vector<float> dot(const Kernels& kernels, const TestRows& rows, const std::vector<float>& x, std::size_t d) {
  const std::size_t tokens = x.size() / d;
  const DTypeKernels& of = kernels[rows.dtype];
  const Guarded data(rows.data);
  const Guarded scales(rows.scales);
  const Guarded floats(x);
  const Guarded out(rows.rows * tokens * sizeof(float));
  Tokens inputs{floats.data(), d * sizeof(float), tokens};
  std::unique_ptr<Guarded> prepared;
  if (of.prepare != nullptr) {
    inputs.stride = of.prepared_bytes(d);
    prepared = std::make_unique<Guarded>(tokens * inputs.stride);
    inputs.data = prepared->data();
    of.prepare(floats.floats(), tokens, d, prepared->data());
  }
  of.dot({data.data(), rows.scales.empty() ? nullptr : scales.data(), rows.rows}, inputs, d, out.floats());
  return {out.floats(), out.floats() + rows.rows * tokens};
}

std::vector<float> add(const Kernels& kernels, const TestRows& rows, const std::vector<float>& h, std::size_t d,
                       const std::vector<float>* before) {
  const std::size_t tokens = h.size() / rows.rows;
  const Guarded data(rows.data);
  const Guarded scales(rows.scales);
  const Guarded weights(h);
  const Guarded y(before != nullptr ? *before : std::vector<float>(tokens * d, kNan));
  kernels[rows.dtype].add({data.data(), rows.scales.empty() ? nullptr : scales.data(), rows.rows}, weights.floats(),
                          tokens, d, before != nullptr, y.floats());
  return {y.floats(), y.floats() + tokens * d};
}

class KernelsTest : public testing::TestWithParam<Isa> {
 protected:
  const Kernels& kernels_ = *kernels_of(GetParam());
  const Kernels& reference_ = *kernels_of(Isa::kScalar);
  std::mt19937 random_{static_cast<unsigned>(GetParam()) + 1};
};

std::string isa_name(const testing::TestParamInfo<Isa>& info) { return std::string(name(info.param)); }

INSTANTIATE_TEST_SUITE_P(, KernelsTest, testing::ValuesIn(supported_isas()), isa_name);

TEST_P(KernelsTest, DotIsTheScalarOne) {
  for (int trial = 0; trial < 150; ++trial) {
    const Shape shape = random_shape(kAllDTypes[trial % 5], random_);
    const auto [dtype, d, rows, tokens] = shape;
    TestRows w = make_rows(dtype, rows, d, random_);
    if (trial % 3 == 0) roughen_scales(w, random_);
    const auto x = random_floats(tokens * d, random_);
    const auto out = dot(kernels_, w, x, d);
    const auto expected = dot(reference_, w, x, d);
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t t = 0; t < tokens; ++t) {
        double magnitude = 0;
        for (std::size_t i = 0; i < d; ++i) magnitude += std::fabs(double{w.values[row * d + i]} * x[t * d + i]);
        const std::size_t at = row * tokens + t;
        expect_close(out[at], expected[at], 1e-6 * magnitude + 1e-44, shape.text());
      }
    }
  }
}

TEST_P(KernelsTest, DotOfLargestIntegersDoesNotOverflow) {
  for (const DType dtype : {DType::kI8, DType::kI4}) {
    for (const std::size_t d : {kSegment, 2 * kSegment + 32}) {
      for (const float sign : {1.0F, -1.0F}) {
        TestRows w = make_rows(dtype, 5, d, random_);
        for (std::size_t row = 0; row < 5; ++row) {
          const std::vector<float> ones(d, sign);
          ASSERT_TRUE(quantize_row(dtype, ones, w.data.data() + row * row_bytes(dtype, d),
                                   w.scales.data() + row * row_scale_bytes(dtype, d)));
        }
        const auto out = dot(kernels_, w, std::vector<float>(3 * d, 2.0F), d);
        const float unit = dtype == DType::kI8 ? 1.0F : 7 * f16_to_f32(f32_to_f16(1.0F / 7));
        for (const float value : out) EXPECT_NEAR(value, sign * 2 * unit * static_cast<float>(d), 0.02);
      }
    }
  }
}

TEST_P(KernelsTest, DotOfATokenIsTheSameWhateverTheOthers) {
  for (int trial = 0; trial < 60; ++trial) {
    Shape shape = random_shape(kAllDTypes[trial % 5], random_);
    shape.rows = 1 + random_() % kMaxRows;
    if (trial % 4 == 0) shape.d = 2 * kSegment + 32 * (random_() % 20);
    const TestRows w = make_rows(shape.dtype, shape.rows, shape.d, random_);
    const auto x = random_floats(shape.tokens * shape.d, random_);
    const auto together = dot(kernels_, w, x, shape.d);
    for (std::size_t t = 0; t < shape.tokens; ++t) {
      const auto from = x.begin() + static_cast<std::ptrdiff_t>(t * shape.d);
      const auto alone = dot(kernels_, w, {from, from + static_cast<std::ptrdiff_t>(shape.d)}, shape.d);
      for (std::size_t row = 0; row < shape.rows; ++row) {
        ASSERT_EQ(together[row * shape.tokens + t], alone[row]) << shape.text() << " token " << t << " row " << row;
      }
    }
  }
}

TEST_P(KernelsTest, DotOfNoNumbersIsTheScalarOne) {
  for (int trial = 0; trial < 60; ++trial) {
    const Shape shape = random_shape(kAllDTypes[trial % 5], random_);
    const TestRows w = make_rows(shape.dtype, shape.rows, shape.d, random_);
    auto x = random_floats(shape.tokens * shape.d, random_);
    x[random_() % x.size()] = std::array{kNan, kInfinity, -kInfinity}[trial % 3];
    const auto out = dot(kernels_, w, x, shape.d);
    const auto expected = dot(reference_, w, x, shape.d);
    for (std::size_t i = 0; i < out.size(); ++i) expect_close(out[i], expected[i], 1e-3, shape.text());
  }
}

TEST_P(KernelsTest, TokensFarFromOneKeepTheirPrecision) {
  for (const DType dtype : kAllDTypes) {
    const TestRows w = make_rows(dtype, 3, 96, random_);
    for (const float magnitude : {0.0F, 1e-42F, 1e-25F, 1e25F, 3e37F}) {
      auto x = random_floats(96, random_);
      for (float& value : x) value *= magnitude;
      const auto out = dot(kernels_, w, x, 96);
      const auto expected = dot(reference_, w, x, 96);
      for (std::size_t i = 0; i < 3; ++i)
        expect_close(out[i], expected[i], 1e-5 * magnitude + 1e-44, std::string(name(dtype)));
    }
  }
}

TEST_P(KernelsTest, AddIsTheScalarOne) {
  for (int trial = 0; trial < 200; ++trial) {
    Shape shape = random_shape(kAllDTypes[trial % 5], random_);
    if (trial % 4 == 0) shape.tokens = 1;
    if (trial % 7 == 0) shape.rows = kMaxRows;
    const auto [dtype, d, rows, tokens] = shape;
    TestRows w = make_rows(dtype, rows, d, random_);
    if (trial % 3 == 0) roughen_scales(w, random_);
    auto h = random_floats(rows * tokens, random_);
    if (trial % 11 == 0) h[random_() % h.size()] = std::array{kNan, kInfinity, -kInfinity}[trial % 3];
    const auto before = random_floats(tokens * d, random_);
    const bool accumulate = trial % 2 == 0;
    const auto y = add(kernels_, w, h, d, accumulate ? &before : nullptr);
    const auto expected = add(reference_, w, h, d, accumulate ? &before : nullptr);
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t i = 0; i < d; ++i) {
        double magnitude = std::fabs(before[t * d + i]);
        for (std::size_t row = 0; row < rows; ++row) {
          const float weight = h[row * tokens + t];
          if (std::isfinite(weight)) magnitude += std::fabs(double{weight} * w.values[row * d + i]);
        }
        expect_close(y[t * d + i], expected[t * d + i], 1e-6 * magnitude + 1e-40, shape.text());
      }
    }
  }
}

TEST_P(KernelsTest, GatesAreTheScalarOnes) {
  std::vector<float> gate = {0.0F,   -0.0F,  1e-40F, 88.0F,     -88.0F,     89.5F, -89.5F,
                             104.5F, -1e30F, 1e30F,  kInfinity, -kInfinity, kNan};
  for (float v = -100; v < 100; v += 0.37F) gate.push_back(v);
  const auto up = random_floats(gate.size(), random_);
  for (const auto of : {&kernels::Kernels::swiglu, &kernels::Kernels::geglu}) {
    auto expected = gate;
    (reference_.*of)(expected.data(), up.data(), expected.size());
    for (const std::size_t n : {std::size_t{1}, std::size_t{13}, gate.size()}) {
      const Guarded out(std::vector<float>(gate.begin(), gate.begin() + static_cast<std::ptrdiff_t>(n)));
      const Guarded ups(std::vector<float>(up.begin(), up.begin() + static_cast<std::ptrdiff_t>(n)));
      (kernels_.*of)(out.floats(), ups.floats(), n);
      for (std::size_t i = 0; i < n; ++i) {
        // The power that gelu takes is rounded itself, which moves e^u by as much as u is large.
        const float power = kernels::kGeluLinear * gate[i] + kernels::kGeluCubic * gate[i] * gate[i] * gate[i];
        const float steps = of == &kernels::Kernels::swiglu ? 1 : 1 + std::min(std::fabs(power), 104.0F);
        expect_close(out.floats()[i], expected[i], 3e-7 * steps * std::fabs(expected[i]) + 1e-35,
                     (of == &kernels::Kernels::swiglu ? "silu(" : "gelu(") + std::to_string(gate[i]) + ")");
      }
    }
  }
}

TEST_P(KernelsTest, GeluIsTheOneWithTanh) {
  for (float v = -10; v < 10; v += 0.0371F) {
    const double x = static_cast<double>(v);
    float found = v;
    const float one = 1;
    kernels_.geglu(&found, &one, 1);
    const double wanted = x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    ASSERT_NEAR(static_cast<double>(found), wanted, 1e-6 * std::fabs(wanted) + 1e-7) << v;
  }
}

TEST_P(KernelsTest, SumAddsInOrder) {
  for (const std::size_t n : {1, 15, 64, 131}) {
    for (const std::size_t count : {1, 2, 9}) {
      const auto parts = random_floats(n * count, random_);
      const Guarded from(parts);
      const Guarded y(n * sizeof(float));
      kernels_.sum(from.floats(), count, n, y.floats());
      for (std::size_t i = 0; i < n; ++i) {
        float expected = parts[i];
        for (std::size_t part = 1; part < count; ++part) expected += parts[part * n + i];
        EXPECT_EQ(y.floats()[i], expected);
      }
    }
  }
}

TEST(Isa, IsTheBestOneUnlessChosen) {
  EXPECT_EQ(supported_isas().front(), Isa::kScalar);
  EXPECT_EQ(active_isa(), supported_isas().back());
  ASSERT_TRUE(set_isa(Isa::kScalar));
  EXPECT_EQ(active_isa(), Isa::kScalar);
  ASSERT_TRUE(set_isa(supported_isas().back()));
}

TEST(Isa, NamesAreReadBack) {
  for (const Isa isa : supported_isas()) EXPECT_EQ(parse_isa(name(isa)), isa);
  EXPECT_FALSE(parse_isa("sse9"));
}

TEST(Isa, OneThatTheMachineLacksIsAnError) {
#if defined(__aarch64__)
  const auto status = set_isa(Isa::kAvx2);
#else
  const auto status = set_isa(Isa::kNeon);
#endif
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(status.error().message.find("scalar"), std::string::npos);
}

TEST(Kernels, ChecksumsAreTheSameInAllTables) {
  std::mt19937 random(7);
  std::vector<std::byte> bytes(5000);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (const std::size_t length : {0, 1, 16, 128, 240, 241, 256, 1023, 1024, 1025, 4096}) {
    const std::byte* const data = bytes.data() + length % 7;
    const std::uint64_t want = kScalarKernels.checksum(data, length / 3, data + length / 3, length - length / 3);
    for (const Isa isa : supported_isas()) {
      const Kernels& kernels = *kernels_of(isa);
      EXPECT_EQ(kernels.checksum(data, length / 3, data + length / 3, length - length / 3), want)
          << name(isa) << length;
      EXPECT_EQ(kernels.checksum(data, length, data, 0), want) << name(isa) << length;
    }
  }
}

}  // namespace
}  // namespace edge::kernels
