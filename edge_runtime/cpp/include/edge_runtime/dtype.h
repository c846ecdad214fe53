// Element types of the bank and the arithmetic of a block (docs/bank-format.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "edge_runtime/result.h"

namespace edge {

enum class DType : std::uint8_t { kF32, kF16, kBF16, kI8, kI4 };

inline constexpr std::size_t kPage = 16384;  // data_start and stride are multiples of it
inline constexpr std::size_t kI4Group = 32;  // elements that share a scale, along a row

std::string_view name(DType dtype);                       // "f32" "f16" "bf16" "i8" "i4"
std::optional<DType> parse_dtype(std::string_view text);  // nullopt for anything else

// Bytes of `columns` elements of one matrix row, and of that row's scales. REQUIRES columns % 32 == 0 for kI4.
std::size_t row_bytes(DType dtype, std::size_t columns);
std::size_t row_scale_bytes(DType dtype, std::size_t columns);

// Quantises one row of finite values into `data` and `scales`, rounding to nearest even.
// kInvalidArgument where a value is not finite or overflows the dtype.
Status quantize_row(DType dtype, std::span<const float> row, std::byte* data, std::byte* scales);
// The inverse: out[i] for i < out.size().
void dequantize_row(DType dtype, const std::byte* data, const std::byte* scales, std::span<float> out);

float f16_to_f32(std::uint16_t bits);
std::uint16_t f32_to_f16(float value);  // round to nearest even; overflow gives infinity

}  // namespace edge
