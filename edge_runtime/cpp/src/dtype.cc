#include "edge_runtime/dtype.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

namespace edge {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"f32", "f16", "bf16", "i8", "i4"};

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename T>
void store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

std::uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounding = 0x7FFFU + ((bits >> 16U) & 1U);  // to nearest, ties to even
  return static_cast<std::uint16_t>((bits + rounding) >> 16U);
}

float bf16_to_f32(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U); }

float largest_magnitude(std::span<const float> values) {
  float largest = 0;
  for (const float v : values) {
    largest = std::max(largest, std::fabs(v));
  }
  return largest;
}

int round_to_even(float value) { return static_cast<int>(std::nearbyint(value)); }

void quantize_i8(std::span<const float> row, std::byte* data, std::byte* scales) {
  float scale = largest_magnitude(row) / 127.0F;
  // Rounded up beside the largest float, it would bring that back as infinity.
  if (std::isinf(scale * 127.0F)) scale = std::nextafter(scale, 0.0F);
  store(scales, scale);
  for (std::size_t i = 0; i < row.size(); ++i) {
    const int q = scale > 0 ? std::clamp(round_to_even(row[i] / scale), -127, 127) : 0;
    store(data + i, static_cast<std::int8_t>(q));
  }
}

Status quantize_i4(std::span<const float> row, std::byte* data, std::byte* scales) {
  for (std::size_t group = 0; group * kI4Group < row.size(); ++group) {
    const auto values = row.subspan(group * kI4Group, kI4Group);
    const std::uint16_t bits = f32_to_f16(largest_magnitude(values) / 7.0F);
    const float scale = f16_to_f32(bits);
    if (!std::isfinite(scale)) {
      return fail(ErrorCode::kInvalidArgument, "a value is too large for the f16 scale of an i4 group");
    }
    store(scales + group * 2, bits);
    std::array<unsigned, kI4Group> q{};
    for (std::size_t i = 0; i < kI4Group; ++i) {
      q[i] = scale > 0 ? static_cast<unsigned>(std::clamp(round_to_even(values[i] / scale) + 8, 0, 15)) : 8U;
    }
    for (std::size_t b = 0; b < kI4Group / 2; ++b) {
      data[group * (kI4Group / 2) + b] = static_cast<std::byte>(q[b] | (q[b + kI4Group / 2] << 4U));
    }
  }
  return {};
}

}  // namespace

std::string_view name(DType dtype) { return kNames[static_cast<std::size_t>(dtype)]; }

std::optional<DType> parse_dtype(std::string_view text) {
  const auto* const found = std::find(kNames.begin(), kNames.end(), text);
  if (found == kNames.end()) {
    return std::nullopt;
  }
  return static_cast<DType>(found - kNames.begin());
}

std::size_t row_bytes(DType dtype, std::size_t columns) {
  switch (dtype) {
    case DType::kF32:
      return columns * 4;
    case DType::kF16:
    case DType::kBF16:
      return columns * 2;
    case DType::kI8:
      return columns;
    case DType::kI4:
      return columns / 2;
  }
  return 0;
}

std::size_t row_scale_bytes(DType dtype, std::size_t columns) {
  switch (dtype) {
    case DType::kI8:
      return 4;
    case DType::kI4:
      return columns / kI4Group * 2;
    default:
      return 0;
  }
}

Status quantize_row(DType dtype, std::span<const float> row, std::byte* data, std::byte* scales) {
  if (!std::all_of(row.begin(), row.end(), [](float v) { return std::isfinite(v); })) {
    return fail(ErrorCode::kInvalidArgument, "a value is not finite");
  }
  switch (dtype) {
    case DType::kF32:
      std::memcpy(data, row.data(), row.size_bytes());
      return {};
    case DType::kF16:
      for (std::size_t i = 0; i < row.size(); ++i) {
        const std::uint16_t bits = f32_to_f16(row[i]);
        if ((bits & 0x7C00U) == 0x7C00U) {
          return fail(ErrorCode::kInvalidArgument, "a value overflows f16: use bf16 or f32");
        }
        store(data + i * 2, bits);
      }
      return {};
    case DType::kBF16:
      for (std::size_t i = 0; i < row.size(); ++i) {
        const std::uint16_t bits = f32_to_bf16(row[i]);
        if ((bits & 0x7F80U) == 0x7F80U) {
          return fail(ErrorCode::kInvalidArgument, "a value overflows bf16: use f32");
        }
        store(data + i * 2, bits);
      }
      return {};
    case DType::kI8:
      quantize_i8(row, data, scales);
      return {};
    case DType::kI4:
      return quantize_i4(row, data, scales);
  }
  return fail(ErrorCode::kInvalidArgument, "an unknown dtype");
}

void dequantize_row(DType dtype, const std::byte* data, const std::byte* scales, std::span<float> out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out.data(), data, out.size_bytes());
      return;
    case DType::kF16:
      for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = f16_to_f32(load<std::uint16_t>(data + i * 2));
      }
      return;
    case DType::kBF16:
      for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = bf16_to_f32(load<std::uint16_t>(data + i * 2));
      }
      return;
    case DType::kI8: {
      const auto scale = load<float>(scales);
      for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = scale * static_cast<float>(load<std::int8_t>(data + i));
      }
      return;
    }
    case DType::kI4:
      for (std::size_t i = 0; i < out.size(); ++i) {
        const std::size_t group = i / kI4Group;
        const std::size_t within = i % kI4Group;
        const auto packed = std::to_integer<unsigned>(data[group * (kI4Group / 2) + within % (kI4Group / 2)]);
        const unsigned q = within < kI4Group / 2 ? packed & 15U : packed >> 4U;
        out[i] = f16_to_f32(load<std::uint16_t>(scales + group * 2)) * (static_cast<float>(q) - 8.0F);
      }
      return;
  }
}

float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t sign = (std::uint32_t{bits} & 0x8000U) << 16U;
  const std::uint32_t exponent = (std::uint32_t{bits} >> 10U) & 31U;
  const std::uint32_t mantissa = bits & 0x3FFU;
  if (exponent == 31) {
    return std::bit_cast<float>(sign | 0x7F800000U | (mantissa << 13U));
  }
  if (exponent == 0) {
    const float subnormal = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -subnormal : subnormal;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23U) | (mantissa << 13U));
}

std::uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16U) & 0x8000U);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) {
    return static_cast<std::uint16_t>(sign | 0x7E00U);
  }
  if (magnitude >= 65520.0F) {  // halfway between the largest f16 and the next power: rounds to infinity
    return static_cast<std::uint16_t>(sign | 0x7C00U);
  }
  if (magnitude < 0x1p-14F) {  // subnormal: a multiple of 2^-24; scaling by a power of two is exact
    return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(round_to_even(magnitude * 0x1p24F)));
  }
  const auto magnitude_bits = std::bit_cast<std::uint32_t>(magnitude);
  const std::uint32_t rounded = magnitude_bits + 0xFFFU + ((magnitude_bits >> 13U) & 1U);
  return static_cast<std::uint16_t>(sign | ((rounded >> 13U) - (112U << 10U)));
}

}  // namespace edge
