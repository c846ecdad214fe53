// How tokens are rounded for quantised rows (kernels.h), and how their products are added up, in AVX-512. In an unnamed
// namespace, as avx512.h says.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/instruction_set.h"

namespace edge::kernels {
namespace {

// 16 lanes of q as 32-bit integers.
__m512i quantise(const float* x, std::size_t count, __m512 inverse) {
  const auto mask = static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1U << count) - 1);
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x), inverse));
}

// 16 columns: q = 256 * high + low, both signed bytes.
void split(__m512i q, std::byte* high, std::byte* low) {
  const __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(128)), 8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm512_cvtepi32_epi8(upper));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(q));
}

// The high and low bytes of 64 columns from `begin` on; zeros behind the last.
void split_line(const float* x, std::size_t begin, std::size_t d, __m512 inverse, std::byte* high, std::byte* low) {
  for (std::size_t k = 0; k < 64; k += 16) {
    const std::size_t column = begin + k;
    const __m512i q = column < d ? quantise(x + column, d - column, inverse) : _mm512_setzero_si512();
    split(q, high + k, low + k);
  }
}

// The token's scale at `out`; the factor that gives q.
__m512 scale_of(const float* x, std::size_t d, std::byte* out) {
  __m512i largest = _mm512_setzero_si512();
  for (std::size_t i = 0; i < d; i += 16) {
    const auto mask = static_cast<__mmask16>(d - i >= 16 ? 0xFFFF : (1U << (d - i)) - 1);
    // Magnitudes order like their bits, NaN above infinity.
    const __m512i bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, x + i));
    largest = _mm512_max_epi32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFFFFFF)));
  }
  const TokenScale scale = token_scale(_mm512_reduce_max_epi32(largest));
  std::memcpy(out, &scale.scale, sizeof scale.scale);
  return _mm512_set1_ps(scale.inverse);
}

__m512i load(const std::byte* from) { return _mm512_loadu_si512(from); }

// Sums of the four integers in each lane of 128 bits: that of lane j of sums[k] at 4 j + k.
__m512i lane_sums(const __m512i (&sums)[4]) {
  const auto pairs = [](__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  };
  const __m512i front = pairs(sums[0], sums[1]);
  const __m512i back = pairs(sums[2], sums[3]);
  return _mm512_add_epi32(_mm512_unpacklo_epi64(front, back), _mm512_unpackhi_epi64(front, back));
}

}  // namespace
}  // namespace edge::kernels
