// What the instruction sets share of products with quantised rows, and the table of one instruction set.
//
// A form (I8, I4) gives: prepared_bytes, prepare, kRows x kTokens for its largest tile, and tile<rows, tokens>.
// Functions here are static: each file that includes this needs its own copy, compiled with its own flags.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/add_tiles.h"
#include "kernels/kernels.h"
#include "kernels/vector_tiles.h"

namespace edge::kernels {

struct TokenScale {
  float scale;    // x = scale * q
  float inverse;  // q = round(x * inverse)
};

// From the bits of max|x|.
static inline TokenScale token_scale(std::int32_t largest_bits) {
  float largest = 0;
  std::memcpy(&largest, &largest_bits, sizeof largest);
  constexpr std::int32_t kInfinityBits = 0x7F800000;
  if (largest_bits >= kInfinityBits) {
    return {__builtin_nanf(""), 0};
  }
  if (largest < kSmallestActivation) {
    return {0, 0};
  }
  return {largest / static_cast<float>(kActivationLimit), static_cast<float>(kActivationLimit) / largest};
}

static inline float load_float(const std::byte* from) {
  float value = 0;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class Form, DType kType>
void dot_quantised(const Rows& rows, const Tokens& tokens, std::size_t d, float* out) {
  const std::size_t stride = bytes_of<kType>(d);
  const std::size_t scale_stride = kType == DType::kI8 ? sizeof(float) : d / kI4Group * 2;
  for_tiles<Form::kRows, Form::kTokens>(
      rows.count, tokens.count, [&]<std::size_t kRows, std::size_t kTokens>(std::size_t row, std::size_t token) {
        Form::template tile<kRows, kTokens>(rows.data + row * stride, rows.scales + row * scale_stride,
                                            tokens.data + token * tokens.stride, tokens.stride, d,
                                            out + row * tokens.count + token, tokens.count);
      });
}

template <class V, class I8, class I4>
constexpr Kernels kernels_over() {
  return {.of = {{{nullptr, nullptr, dot_floats<V, DType::kF32>, add_rows<V, DType::kF32>},
                  {nullptr, nullptr, dot_floats<V, DType::kF16>, add_rows<V, DType::kF16>},
                  {nullptr, nullptr, dot_floats<V, DType::kBF16>, add_rows<V, DType::kBF16>},
                  {I8::prepared_bytes, I8::prepare, dot_quantised<I8, DType::kI8>, add_rows<V, DType::kI8>},
                  {I4::prepared_bytes, I4::prepare, dot_quantised<I4, DType::kI4>, add_rows<V, DType::kI4>}}},
          .swiglu = swiglu<V>,
          .sum = sum_parts<V>};
}

}  // namespace edge::kernels
