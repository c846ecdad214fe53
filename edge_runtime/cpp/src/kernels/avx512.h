// The vector type of AVX-512, for vector_tiles.h. In an unnamed namespace: only avx512.cc has it, with its flags.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/instruction_set.h"

namespace edge::kernels {
namespace {

struct Avx512 {
  using F = __m512;
  static constexpr std::size_t kLanes = 16;
  static constexpr std::size_t kDotRows = 4;
  static constexpr std::size_t kDotTokens = 2;
  static constexpr std::size_t kDotSums = 2;
  static constexpr std::size_t kAddTokens = 8;
  static constexpr bool kAddsQuads = true;

  static F zero() { return _mm512_setzero_ps(); }
  static F broadcast(float v) { return _mm512_set1_ps(v); }
  static F load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, F v) { _mm512_storeu_ps(to, v); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  // The second operand where either is NaN.
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F round(F v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F scale_by_power_of_two(F v, F n) { return _mm512_scalef_ps(v, n); }
  static float largest(F v) { return _mm512_reduce_max_ps(v); }
  static float sum(F v) {
    float sums[4];
    sum4(v, v, v, v, sums);
    return sums[0];
  }
  // Halves, then quarters, then pairs: each sum ends up in a quarter of its own.
  static void sum4(F a, F b, F c, F d, float* to) {
    const auto halves = [](F v, F w) {
      return _mm512_add_ps(_mm512_shuffle_f32x4(v, w, 0x44), _mm512_shuffle_f32x4(v, w, 0xEE));
    };
    const F ab = halves(a, b);
    const F cd = halves(c, d);
    F sums = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
    sums = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0xB1));
    sums = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0x4E));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, sums)));
  }

  static F f16(const std::byte* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static void store_f16(std::byte* to, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static F bf16(const std::byte* from) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  template <DType kType>
    requires(kType == DType::kF32 || kType == DType::kF16)
  static F masked(const std::byte* from, std::size_t count) {
    const auto mask = static_cast<__mmask16>((1U << count) - 1);
    if constexpr (kType == DType::kF32) {
      return _mm512_maskz_loadu_ps(mask, from);
    } else {
      return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from));
    }
  }
  static F broadcast_f16(const std::byte* from) {
    short bits = 0;
    std::memcpy(&bits, from, sizeof bits);
    return _mm512_cvtph_ps(_mm256_set1_epi16(bits));
  }

  using I = __m512i;
  static F as_floats(I v) { return _mm512_castsi512_ps(v); }
  static I as_ints(F v) { return _mm512_castps_si512(v); }
  static I zero_ints() { return _mm512_setzero_si512(); }
  static I to_ints(F v) { return _mm512_cvtps_epi32(v); }
  static I add_ints(I a, I b) { return _mm512_add_epi32(a, b); }
  static I times_minus_8(I v) { return _mm512_sub_epi32(zero_ints(), _mm512_slli_epi32(v, 3)); }
  static I pack(I low, I high) { return _mm512_mask_mov_epi16(_mm512_slli_epi32(high, 16), 0x55555555, low); }
  // Magnitudes order like their bits, NaN above infinity.
  static F magnitude_max(F largest, F v) {
    return as_floats(_mm512_max_epi32(as_ints(largest), _mm512_and_si512(as_ints(v), _mm512_set1_epi32(0x7FFFFFFF))));
  }
  static F zero_if_less(F v, F value, F bound) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(value, bound, _CMP_NLT_UQ), v);
  }

  struct Pair {
    I columns[2];
  };
  // i8: columns 0..7 and 16..23, then the others, as bytes are interleaved within 128 bits.
  template <DType kType>
  static Pair pair(const std::byte* first, const std::byte* second) {
    if constexpr (kType == DType::kI8) {
      const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first));
      const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second));
      return {_mm512_cvtepi8_epi16(_mm256_unpacklo_epi8(a, b)), _mm512_cvtepi8_epi16(_mm256_unpackhi_epi8(a, b))};
    } else {
      const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first));
      const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(second));
      const I packed = _mm512_cvtepu8_epi16(_mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b)));
      return {_mm512_and_si512(packed, _mm512_set1_epi16(15)), _mm512_srli_epi16(packed, 4)};
    }
  }
  static void accumulate(const Pair& pair, const float* weights, I (&sums)[2]) {
    const I both = as_ints(broadcast(*weights));
    sums[0] = _mm512_dpwssd_epi32(sums[0], pair.columns[0], both);
    sums[1] = _mm512_dpwssd_epi32(sums[1], pair.columns[1], both);
  }
  template <DType kType>
  static void in_order(const I (&sums)[2], F (&values)[2]) {
    if constexpr (kType == DType::kI8) {
      values[0] = _mm512_cvtepi32_ps(_mm512_inserti64x4(sums[0], _mm512_castsi512_si256(sums[1]), 1));
      values[1] = _mm512_cvtepi32_ps(_mm512_shuffle_i64x2(sums[0], sums[1], 0xEE));
    } else {
      values[0] = _mm512_cvtepi32_ps(sums[0]);
      values[1] = _mm512_cvtepi32_ps(sums[1]);
    }
  }
  // In avx512_add.h.
  template <DType kType>
  static void stream_quads(const Rows& rows, const float* h, std::size_t d, std::size_t begin, std::size_t end,
                           float* y);
};

}  // namespace
}  // namespace edge::kernels
