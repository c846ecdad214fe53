// AVX2 with FMA and F16C. Activations are 16-bit integers and i8 or i4 weights are widened to 16 bits: VPMADDWD's sums
// of two products are exact, where VPMADDUBSW's would saturate.
#include <immintrin.h>

#include <cstdint>

#include "kernels/instruction_set.h"

namespace edge::kernels {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr std::size_t kLanes = 8;
  static constexpr std::size_t kDotRows = 2;
  static constexpr std::size_t kDotTokens = 2;
  static constexpr std::size_t kDotSums = 2;
  static constexpr std::size_t kAddTokens = 2;

  static F zero() { return _mm256_setzero_ps(); }
  static F broadcast(float v) { return _mm256_set1_ps(v); }
  static F load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, F v) { _mm256_storeu_ps(to, v); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F round(F v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // In two steps, as 2^n alone may be beyond an exponent.
  static F scale_by_power_of_two(F v, F n) {
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return mul(mul(v, power_of_two(half)), power_of_two(_mm256_sub_epi32(whole, half)));
  }
  static F power_of_two(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  static float largest(F v) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  static float sum(F v) {
    const F pairs = _mm256_hadd_ps(v, v);
    const F fours = _mm256_hadd_ps(pairs, pairs);
    return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1)));
  }
  static void sum4(F a, F b, F c, F d, float* to) {
    const F fours = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1)));
  }

  static F f16(const std::byte* from) { return _mm256_cvtph_ps(load_16_bytes(from)); }
  static void store_f16(std::byte* to, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static F bf16(const std::byte* from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16_bytes(from)), 16));
  }
  static F broadcast_f16(const std::byte* from) {
    short bits = 0;
    std::memcpy(&bits, from, sizeof bits);
    return _mm256_cvtph_ps(_mm_set1_epi16(bits));
  }

  using I = __m256i;
  static F as_floats(I v) { return _mm256_castsi256_ps(v); }
  static I as_ints(F v) { return _mm256_castps_si256(v); }
  static I zero_ints() { return _mm256_setzero_si256(); }
  static I to_ints(F v) { return _mm256_cvtps_epi32(v); }
  static I add_ints(I a, I b) { return _mm256_add_epi32(a, b); }
  static I times_minus_8(I v) { return _mm256_sub_epi32(zero_ints(), _mm256_slli_epi32(v, 3)); }
  static I pack(I low, I high) { return _mm256_blend_epi16(_mm256_slli_epi32(high, 16), low, 0x55); }
  // Magnitudes order like their bits, NaN above infinity.
  static F magnitude_max(F largest, F v) {
    return as_floats(_mm256_max_epi32(as_ints(largest), _mm256_and_si256(as_ints(v), _mm256_set1_epi32(0x7FFFFFFF))));
  }
  static F zero_if_less(F v, F value, F bound) { return _mm256_and_ps(v, _mm256_cmp_ps(value, bound, _CMP_NLT_UQ)); }

  struct Pair {
    I columns[4];
  };
  template <DType kType>
  static Pair pair(const std::byte* first, const std::byte* second) {
    const __m128i a = load_16_bytes(first);
    const __m128i b = load_16_bytes(second);
    if constexpr (kType == DType::kI8) {
      const __m128i c = load_16_bytes(first + 16);
      const __m128i d = load_16_bytes(second + 16);
      return {_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b)), _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b)),
              _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(c, d)), _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(c, d))};
    } else {
      const I low = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
      const I high = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
      const I mask = _mm256_set1_epi16(15);
      return {_mm256_and_si256(low, mask), _mm256_and_si256(high, mask), _mm256_srli_epi16(low, 4),
              _mm256_srli_epi16(high, 4)};
    }
  }
  static void accumulate(const Pair& pair, const float* weights, I (&sums)[4]) {
    const I both = as_ints(broadcast(*weights));
    EDGE_UNROLL
    for (std::size_t v = 0; v < 4; ++v) sums[v] = add_ints(sums[v], _mm256_madd_epi16(pair.columns[v], both));
  }
  template <DType kType>
  static void in_order(const I (&sums)[4], F (&values)[4]) {
    EDGE_UNROLL
    for (std::size_t v = 0; v < 4; ++v) values[v] = _mm256_cvtepi32_ps(sums[v]);
  }

  static __m128i load_16_bytes(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
};

// A token, for i8 and i4 alike: [scale, padded to 64 bytes] [16 bits a column, padded with zeros to 64 bytes].
constexpr std::size_t kHeader = 64;

std::size_t bytes_of_token(std::size_t d) { return kHeader + (d + 31) / 32 * 64; }

void prepare_token(const float* x, std::size_t d, std::byte* out) {
  const auto floats = [&](std::size_t i) {
    return d - i >= 8 ? _mm256_loadu_ps(x + i)
                      : load_tail<Avx2, DType::kF32>(reinterpret_cast<const std::byte*>(x), i, d - i);
  };
  __m256i largest = _mm256_setzero_si256();
  for (std::size_t i = 0; i < d; i += 8) {
    // Magnitudes order like their bits, NaN above infinity.
    const __m256i bits = _mm256_castps_si256(floats(i));
    largest = _mm256_max_epi32(largest, _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF)));
  }
  alignas(32) std::int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest);
  for (const std::int32_t lane : lanes) lanes[0] = lane > lanes[0] ? lane : lanes[0];
  const TokenScale scale = token_scale(lanes[0]);
  std::memset(out, 0, bytes_of_token(d));
  std::memcpy(out, &scale.scale, sizeof scale.scale);
  for (std::size_t i = 0; i < d; i += 8) {
    const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(floats(i), _mm256_set1_ps(scale.inverse)));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + kHeader + i * 2), words);
  }
}

__m256i load_words(const std::byte* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

struct I8 {
  static constexpr DType kType = DType::kI8;
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 2;
  static std::size_t prepared_bytes(std::size_t d) { return bytes_of_token(d); }
  static void prepare(const float* x, std::size_t d, std::byte* out) { prepare_token(x, d, out); }

  template <std::size_t kR, std::size_t kT>
  static void sums(const std::byte* rows, const std::byte* /*scales*/, const std::byte* tokens,
                   std::size_t token_stride, std::size_t d, __m256 (&out)[kR][kT]) {
    EDGE_UNROLL
    for (std::size_t r = 0; r < kR; ++r) {
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) out[r][t] = _mm256_setzero_ps();
    }
    for (std::size_t begin = 0; begin < d; begin += kSegment) {
      const std::size_t end = d - begin < kSegment ? d : begin + kSegment;
      __m256i segment[kR][kT];
      EDGE_UNROLL
      for (std::size_t r = 0; r < kR; ++r) {
        EDGE_UNROLL
        for (std::size_t t = 0; t < kT; ++t) segment[r][t] = _mm256_setzero_si256();
      }
      const auto step = [&](std::size_t i, const __m128i(&packed)[kR]) {
        __m256i w[kR];
        EDGE_UNROLL
        for (std::size_t r = 0; r < kR; ++r) w[r] = _mm256_cvtepi8_epi16(packed[r]);
        EDGE_UNROLL
        for (std::size_t t = 0; t < kT; ++t) {
          const __m256i x = load_words(tokens + t * token_stride + kHeader + i * 2);
          EDGE_UNROLL
          for (std::size_t r = 0; r < kR; ++r) {
            segment[r][t] = _mm256_add_epi32(segment[r][t], _mm256_madd_epi16(w[r], x));
          }
        }
      };
      __m128i packed[kR];
      std::size_t i = begin;
      for (; i + 16 <= end; i += 16) {
        EDGE_UNROLL
        for (std::size_t r = 0; r < kR; ++r) {
          packed[r] = Avx2::load_16_bytes(rows + r * d + i);
        }
        step(i, packed);
      }
      if (i < end) {
        for (std::size_t r = 0; r < kR; ++r) {
          alignas(16) std::byte padded[16] = {};
          std::memcpy(padded, rows + r * d + i, end - i);
          packed[r] = Avx2::load_16_bytes(padded);
        }
        step(i, packed);
      }
      EDGE_UNROLL
      for (std::size_t r = 0; r < kR; ++r) {
        EDGE_UNROLL
        for (std::size_t t = 0; t < kT; ++t) {
          const __m256 part = _mm256_cvtepi32_ps(segment[r][t]);
          out[r][t] = _mm256_add_ps(out[r][t], part);
        }
      }
    }
  }
};

struct I4 {
  static constexpr DType kType = DType::kI4;
  static constexpr std::size_t kRows = 2;
  static constexpr std::size_t kTokens = 2;
  static std::size_t prepared_bytes(std::size_t d) { return bytes_of_token(d); }
  static void prepare(const float* x, std::size_t d, std::byte* out) { prepare_token(x, d, out); }

  template <std::size_t kR, std::size_t kT>
  static void sums(const std::byte* rows, const std::byte* scales, const std::byte* tokens, std::size_t token_stride,
                   std::size_t d, __m256 (&out)[kR][kT]) {
    const std::size_t scale_stride = d / kI4Group * 2;
    EDGE_UNROLL
    for (std::size_t r = 0; r < kR; ++r) {
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) out[r][t] = _mm256_setzero_ps();
    }
    for (std::size_t i = 0; i < d; i += kI4Group) {
      __m256i first[kR];
      __m256i second[kR];
      __m256 scale[kR];
      EDGE_UNROLL
      for (std::size_t r = 0; r < kR; ++r) {
        const std::byte* row = rows + r * (d / 2) + i / 2;
        const __m256i packed = _mm256_cvtepu8_epi16(Avx2::load_16_bytes(row));
        const __m256i eight = _mm256_set1_epi16(8);
        first[r] = _mm256_sub_epi16(_mm256_and_si256(packed, _mm256_set1_epi16(15)), eight);
        second[r] = _mm256_sub_epi16(_mm256_srli_epi16(packed, 4), eight);
        scale[r] = Avx2::broadcast_f16(scales + r * scale_stride + i / kI4Group * 2);
      }
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) {
        const std::byte* x = tokens + t * token_stride + kHeader + i * 2;
        EDGE_UNROLL
        for (std::size_t r = 0; r < kR; ++r) {
          const __m256i products = _mm256_add_epi32(_mm256_madd_epi16(first[r], load_words(x)),
                                                    _mm256_madd_epi16(second[r], load_words(x + 32)));
          out[r][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scale[r], out[r][t]);
        }
      }
    }
  }
};

}  // namespace

constinit const Kernels kAvx2Kernels = kernels_over<Avx2, I8, I4>();

}  // namespace edge::kernels
