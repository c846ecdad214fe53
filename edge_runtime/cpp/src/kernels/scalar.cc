// The reference: what every kernel means, one value at a time and summed in double precision or exactly.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "kernels/checksum.h"
#include "kernels/kernels.h"

namespace edge::kernels {
namespace {

template <typename T>
T load(const std::byte* from, std::size_t index) {
  T value;
  // Null scales belong to dtypes that have none, which read none.
  // NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker)
  std::memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}

float bf16_to_f32(std::uint16_t bits) {
  const std::uint32_t wide = std::uint32_t{bits} << 16U;
  float value = 0;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

template <DType kType>
constexpr bool kQuantised = kType == DType::kI8 || kType == DType::kI4;

// A row's element without its scale, and the scale that belongs to it.
template <DType kType>
float element(const std::byte* row, std::size_t i) {
  if constexpr (kType == DType::kF32) {
    return load<float>(row, i);
  } else if constexpr (kType == DType::kF16) {
    return f16_to_f32(load<std::uint16_t>(row, i));
  } else if constexpr (kType == DType::kBF16) {
    return bf16_to_f32(load<std::uint16_t>(row, i));
  } else if constexpr (kType == DType::kI8) {
    return load<std::int8_t>(row, i);
  } else {
    constexpr std::size_t kHalf = kI4Group / 2;
    const std::size_t within = i % kI4Group;
    const auto packed = load<std::uint8_t>(row, i / kI4Group * kHalf + within % kHalf);
    return static_cast<float>(within < kHalf ? packed & 15 : packed >> 4) - 8.0F;
  }
}

template <DType kType>
float scale(const std::byte* scales, std::size_t i) {
  if constexpr (kType == DType::kI8) {
    return load<float>(scales, 0);
  } else if constexpr (kType == DType::kI4) {
    return f16_to_f32(load<std::uint16_t>(scales, i / kI4Group));
  } else {
    return 1;
  }
}

// [f32 scale, padded to 64 bytes] [i16 a column, padded to 64 bytes]
constexpr std::size_t kHeader = 64;

std::size_t prepared_bytes(std::size_t d) { return kHeader + (d * 2 + 63) / 64 * 64; }

// How a value is rounded to 16 bits beside the largest one: it is scale * round(value * inverse).
struct Rounding {
  float scale = 0;
  float inverse = 0;

  explicit Rounding(std::span<const float> values) {
    float largest = 0;
    bool finite = true;  // GCC 12 vectorises "if any, scale = NaN" for arm64 into a maximum, which drops the NaN
    for (const float value : values) {
      finite = finite && std::isfinite(value);
      largest = std::fmax(largest, std::fabs(value));
    }
    if (!finite) {
      scale = std::numeric_limits<float>::quiet_NaN();
    } else if (largest >= kSmallestActivation) {
      scale = largest / static_cast<float>(kActivationLimit);
      inverse = static_cast<float>(kActivationLimit) / largest;
    }
  }
  std::int16_t operator()(float value) const {
    return static_cast<std::int16_t>(inverse == 0 ? 0 : std::lrint(value * inverse));
  }
};

void prepare_one(const float* x, std::size_t d, std::byte* out) {
  const Rounding rounding({x, d});
  std::memcpy(out, &rounding.scale, sizeof rounding.scale);
  for (std::size_t i = 0; i < d; ++i) {
    const std::int16_t q = rounding(x[i]);
    std::memcpy(out + kHeader + i * 2, &q, sizeof q);
  }
}

void prepare(const float* x, std::size_t tokens, std::size_t d, std::byte* out) {
  for (std::size_t t = 0; t < tokens; ++t) prepare_one(x + t * d, d, out + t * prepared_bytes(d));
}

template <DType kType>
void dot(const Rows& rows, const Tokens& tokens, std::size_t d, float* out) {
  for (std::size_t row = 0; row < rows.count; ++row) {
    const std::byte* data = rows.data + row * row_bytes(kType, d);
    const std::byte* scales = rows.scales + row * row_scale_bytes(kType, d);
    for (std::size_t t = 0; t < tokens.count; ++t) {
      const std::byte* token = tokens.data + t * tokens.stride;
      double sum = 0;
      for (std::size_t i = 0; i < d; ++i) {
        const double x = kQuantised<kType> ? static_cast<double>(load<std::int16_t>(token + kHeader, i))
                                           : static_cast<double>(load<float>(token, i));
        sum += static_cast<double>(element<kType>(data, i)) * scale<kType>(scales, i) * x;
      }
      const double token_scale = kQuantised<kType> ? load<float>(token, 0) : 1.0F;
      out[row * tokens.count + t] = static_cast<float>(sum * token_scale);
    }
  }
}

template <DType kType>
void add(const Rows& rows, const float* h, std::size_t tokens, std::size_t d, bool accumulate, float* y) {
  std::vector<float> weights(rows.count);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t i = 0; i < d; ++i) {
      for (std::size_t row = 0; row < rows.count; ++row) {
        const std::byte* scales = rows.scales + row * row_scale_bytes(kType, d);
        weights[row] = h[row * tokens + t] * scale<kType>(scales, i);
      }
      double sum = 0;
      const Rounding rounding(weights);
      for (std::size_t row = 0; row < rows.count; ++row) {
        const double weight = kQuantised<kType> ? rounding(weights[row]) : weights[row];
        sum += weight * element<kType>(rows.data + row * row_bytes(kType, d), i);
      }
      const double value = kQuantised<kType> ? sum * rounding.scale : sum;
      y[t * d + i] = static_cast<float>(value) + (accumulate ? y[t * d + i] : 0.0F);
    }
  }
}

void swiglu(float* gate, const float* up, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    gate[i] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
  }
}

void geglu(float* gate, const float* up, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const float u = gate[i] * (kGeluLinear + kGeluCubic * gate[i] * gate[i]);
    gate[i] = gate[i] / (1.0F + std::exp(-u)) * up[i];
  }
}

template <DType kType>
void score(const std::byte* keys, std::size_t groups, const float* queries, std::size_t count, std::size_t d,
           float* scores) {
  for (std::size_t q = 0; q < count; ++q) {
    for (std::size_t key = 0; key < groups * kKeysTogether; ++key) {
      const std::byte* const group = keys + row_bytes(kType, d * kKeysTogether) * (key / kKeysTogether);
      double sum = 0;
      for (std::size_t i = 0; i < d; ++i) {
        const double value = element<kType>(group, i * kKeysTogether + key % kKeysTogether);
        sum += value * queries[i * count + q];
      }
      scores[q * kMaxRows + key] = static_cast<float>(sum);
    }
  }
}

template <DType kType>
void weigh(const std::byte* values, std::size_t rows, const float* weights, const float* shrink, std::size_t count,
           std::size_t d, float* sums) {
  for (std::size_t q = 0; q < count; ++q) {
    for (std::size_t i = 0; i < d; ++i) {
      double sum = static_cast<double>(sums[q * d + i]) * shrink[q];
      for (std::size_t row = 0; row < rows; ++row) {
        const double value = element<kType>(values + row * row_bytes(kType, d), i);
        sum += value * weights[q * kMaxRows + row];
      }
      sums[q * d + i] = static_cast<float>(sum);
    }
  }
}

float soften(float* scores, float before, float* total) {
  float largest = before;
  for (std::size_t i = 0; i < kMaxRows; ++i) largest = scores[i] > largest ? scores[i] : largest;
  double sum = 0;
  for (std::size_t i = 0; i < kMaxRows; ++i) {
    scores[i] = std::exp(scores[i] - largest);
    sum += scores[i];
  }
  *total = static_cast<float>(sum);
  return largest;
}

void to_f16(const float* v, std::size_t n, std::byte* out) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint16_t bits = f32_to_f16(v[i]);
    std::memcpy(out + i * sizeof bits, &bits, sizeof bits);
  }
}

void sum(const float* parts, std::size_t count, std::size_t n, float* y) {
  for (std::size_t i = 0; i < n; ++i) {
    y[i] = parts[i];
    for (std::size_t part = 1; part < count; ++part) {
      y[i] += parts[part * n + i];
    }
  }
}

}  // namespace

const Kernels kScalarKernels = {
    .of = {{{nullptr, nullptr, dot<DType::kF32>, add<DType::kF32>},
            {nullptr, nullptr, dot<DType::kF16>, add<DType::kF16>},
            {nullptr, nullptr, dot<DType::kBF16>, add<DType::kBF16>},
            {prepared_bytes, prepare, dot<DType::kI8>, add<DType::kI8>},
            {prepared_bytes, prepare, dot<DType::kI4>, add<DType::kI4>}}},
    .attention = {{{score<DType::kF32>, weigh<DType::kF32>}, {score<DType::kF16>, weigh<DType::kF16>}}},
    .swiglu = swiglu,
    .geglu = geglu,
    .soften = soften,
    .to_f16 = to_f16,
    .sum = sum,
    .checksum = checksum,
};

}  // namespace edge::kernels
