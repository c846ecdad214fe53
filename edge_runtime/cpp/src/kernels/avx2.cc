// AVX2 with FMA and F16C. Activations are 16-bit integers and i8 or i4 weights are widened to 16 bits: VPMADDWD's sums
// of two products are exact, where VPMADDUBSW's would saturate.
#include <immintrin.h>

#include <cstdint>

#include "kernels/quantised_tiles.h"

namespace edge::kernels {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr std::size_t kLanes = 8;
  static constexpr std::size_t kDotRows = 4;
  static constexpr std::size_t kDotTokens = 2;
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
  static float sum(F v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }

  static F f16(const std::byte* from) { return _mm256_cvtph_ps(load_16_bytes(from)); }
  static F bf16(const std::byte* from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16_bytes(from)), 16));
  }
  static void i8(const std::byte* from, F (&out)[4]) {
    for (std::size_t v = 0; v < 4; ++v) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + v * 8));
      out[v] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    }
  }
  static F broadcast_f16(const std::byte* from) {
    short bits = 0;
    std::memcpy(&bits, from, sizeof bits);
    return _mm256_cvtph_ps(_mm_set1_epi16(bits));
  }
  static void i4(const std::byte* from, F scale, F (&out)[4]) {
    const __m128i packed = load_16_bytes(from);
    const __m128i first = _mm_sub_epi8(_mm_and_si128(packed, _mm_set1_epi8(15)), _mm_set1_epi8(8));
    const __m128i second = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(packed, 4), _mm_set1_epi8(15)), _mm_set1_epi8(8));
    const auto floats = [&](__m128i bytes) { return mul(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))); };
    out[0] = floats(first);
    out[1] = floats(_mm_srli_si128(first, 8));
    out[2] = floats(second);
    out[3] = floats(_mm_srli_si128(second, 8));
  }
  static void prefetch(const std::byte* from) { _mm_prefetch(reinterpret_cast<const char*>(from), _MM_HINT_T0); }
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
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 2;
  static std::size_t prepared_bytes(std::size_t d) { return bytes_of_token(d); }
  static void prepare(const float* x, std::size_t d, std::byte* out) { prepare_token(x, d, out); }

  template <std::size_t kR, std::size_t kT>
  static void tile(const std::byte* rows, const std::byte* scales, const std::byte* tokens, std::size_t token_stride,
                   std::size_t d, float* out, std::size_t out_stride) {
    __m256 sums[kR][kT];
    EDGE_UNROLL
    for (std::size_t r = 0; r < kR; ++r) {
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) sums[r][t] = _mm256_setzero_ps();
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
          if (i % 64 == 0) Avx2::prefetch(rows + r * d + i + kPrefetchBytes);
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
          sums[r][t] = _mm256_add_ps(sums[r][t], part);
        }
      }
    }
    for (std::size_t r = 0; r < kR; ++r) {
      for (std::size_t t = 0; t < kT; ++t) {
        const float by_row = Avx2::sum(sums[r][t]) * load_float(scales + r * sizeof(float));
        out[r * out_stride + t] = by_row * load_float(tokens + t * token_stride);
      }
    }
  }
};

struct I4 {
  static constexpr std::size_t kRows = 2;
  static constexpr std::size_t kTokens = 2;
  static std::size_t prepared_bytes(std::size_t d) { return bytes_of_token(d); }
  static void prepare(const float* x, std::size_t d, std::byte* out) { prepare_token(x, d, out); }

  template <std::size_t kR, std::size_t kT>
  static void tile(const std::byte* rows, const std::byte* scales, const std::byte* tokens, std::size_t token_stride,
                   std::size_t d, float* out, std::size_t out_stride) {
    const std::size_t scale_stride = d / kI4Group * 2;
    __m256 sums[kR][kT];
    EDGE_UNROLL
    for (std::size_t r = 0; r < kR; ++r) {
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) sums[r][t] = _mm256_setzero_ps();
    }
    for (std::size_t i = 0; i < d; i += kI4Group) {
      __m256i first[kR];
      __m256i second[kR];
      __m256 scale[kR];
      EDGE_UNROLL
      for (std::size_t r = 0; r < kR; ++r) {
        const std::byte* row = rows + r * (d / 2) + i / 2;
        if (i % 128 == 0) Avx2::prefetch(row + kPrefetchBytes);
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
          sums[r][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scale[r], sums[r][t]);
        }
      }
    }
    for (std::size_t r = 0; r < kR; ++r) {
      for (std::size_t t = 0; t < kT; ++t) {
        out[r * out_stride + t] = Avx2::sum(sums[r][t]) * load_float(tokens + t * token_stride);
      }
    }
  }
};

}  // namespace

constinit const Kernels kAvx2Kernels = kernels_over<Avx2, I8, I4>();

}  // namespace edge::kernels
