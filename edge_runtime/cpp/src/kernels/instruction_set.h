// The table of one instruction set out of its vector type V and its forms I8 and I4, and what those forms share.
//
// I8 and I4 are forms (dot_tiles.h) that also give prepared_bytes and prepare. A prepared token begins with its scale.
#pragma once

#include <cstdint>

#include "kernels/add_floats.h"
#include "kernels/add_quantised.h"
#include "kernels/attention.h"
#include "kernels/checksum.h"
#include "kernels/dot_tiles.h"
#include "kernels/kernels.h"
#include "kernels/vector_tiles.h"

namespace edge::kernels {

struct TokenScale {
  float scale;    // x = scale * q
  float inverse;  // q = round(x * inverse)
};

// From the bits of max|x|, which kLimit stands for; below `smallest` it counts as zero.
template <int kLimit>
static inline TokenScale scale_of(std::int32_t largest_bits, float smallest) {
  float largest = 0;
  std::memcpy(&largest, &largest_bits, sizeof largest);
  constexpr std::int32_t kInfinityBits = 0x7F800000;
  if (largest_bits >= kInfinityBits) {
    return {__builtin_nanf(""), 0};
  }
  if (largest < smallest) {
    return {0, 0};
  }
  return {largest / static_cast<float>(kLimit), static_cast<float>(kLimit) / largest};
}

static inline TokenScale token_scale(std::int32_t largest_bits) {
  return scale_of<kActivationLimit>(largest_bits, kSmallestActivation);
}

template <class Form>
void prepare(const float* x, std::size_t tokens, std::size_t d, std::byte* out) {
  for (std::size_t t = 0; t < tokens; ++t) Form::prepare(x + t * d, d, out + t * Form::prepared_bytes(d));
}

template <class V, class I8, class I4>
constexpr Kernels kernels_over() {
  return {
      .of = {{{nullptr, nullptr, dot<V, Floats<V, DType::kF32>>, add_floats<V, DType::kF32>},
              {nullptr, nullptr, dot<V, Floats<V, DType::kF16>>, add_floats<V, DType::kF16>},
              {nullptr, nullptr, dot<V, Floats<V, DType::kBF16>>, add_floats<V, DType::kBF16>},
              {I8::prepared_bytes, prepare<I8>, dot<V, I8>, add_quantised<V, DType::kI8>},
              {I4::prepared_bytes, prepare<I4>, dot<V, I4>, add_quantised<V, DType::kI4>}}},
      .attention = {{{score<V, DType::kF32>, weigh<V, DType::kF32>}, {score<V, DType::kF16>, weigh<V, DType::kF16>}}},
      .swiglu = gated<V, Silu>,
      .geglu = gated<V, Gelu>,
      .soften = soften<V>,
      .to_f16 = to_f16<V>,
      .sum = sum_parts<V>,
      .checksum = checksum};
}

}  // namespace edge::kernels
