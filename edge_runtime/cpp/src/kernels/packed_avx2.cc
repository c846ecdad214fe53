// AVX2: VPMADDUBSW multiplies unsigned with signed bytes and adds two products in 16 bits, which saturate. Eight words
// of i4 (at most 15) with 127 stay below that; i8 is taken word by word, as magnitudes, with its sign on the token.
#include <immintrin.h>

#include "kernels/instruction_set.h"
#include "kernels/packed_tiles.h"

namespace edge::kernels {
namespace {

constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kHalves = 2;  // of a block: 8 rows each
constexpr std::size_t kWords = kPackedColumns / kPackedWord;

__m256i load(const std::byte* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

__m256i word_of(const std::int8_t* q) {
  std::int32_t word = 0;
  std::memcpy(&word, q, sizeof word);
  return _mm256_set1_epi32(word);
}

void quantise(const float* x, std::size_t d, PackedGroup* out) {
  for (std::size_t begin = 0; begin < d; begin += kPackedColumns, ++out) {
    alignas(32) float padded[kPackedColumns] = {};
    const float* from = x + begin;
    if (d - begin < kPackedColumns) {
      std::memcpy(padded, from, (d - begin) * sizeof(float));
      from = padded;
    }
    __m256i largest = _mm256_setzero_si256();
    for (std::size_t i = 0; i < kPackedColumns; i += 8) {
      // Magnitudes order like their bits, NaN above infinity.
      const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(from + i));
      largest = _mm256_max_epi32(largest, _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF)));
    }
    alignas(32) std::int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest);
    for (const std::int32_t lane : lanes) lanes[0] = lane > lanes[0] ? lane : lanes[0];
    const TokenScale scale = scale_of<kPackedLimit>(lanes[0], kSmallestGroup);
    std::memset(out->q, 0, sizeof out->q);
    std::int32_t sum = 0;
    if (scale.inverse != 0) {
      __m256i sums = _mm256_setzero_si256();
      for (std::size_t i = 0; i < kPackedColumns; i += 8) {
        const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + i), _mm256_set1_ps(scale.inverse)));
        sums = _mm256_add_epi32(sums, q);
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out->q + i), _mm_packs_epi16(words, words));
      }
      _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums);
      for (const std::int32_t lane : lanes) sum += lane;
    }
    out->scale = scale.scale;
    out->start_i8 = -128 * sum;
    out->start_i4 = -8 * sum;
  }
}

// Sums of a group's products for 8 rows and kT tokens.
struct I8 {
  static constexpr DType kType = DType::kI8;
  template <std::size_t kT>
  static void sums(const std::byte* group, std::size_t groups, const PackedGroup* tokens, __m256i (&out)[kT]) {
    EDGE_UNROLL
    for (std::size_t t = 0; t < kT; ++t) out[t] = _mm256_setzero_si256();
    EDGE_UNROLL
    for (std::size_t w = 0; w < kWords; ++w) {
      const __m256i weights = load(group + w * kLineBytes);
      const __m256i magnitudes = _mm256_abs_epi8(weights);
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) {
        const __m256i q = _mm256_sign_epi8(word_of(tokens[t * groups].q + w * kPackedWord), weights);
        const __m256i pairs = _mm256_maddubs_epi16(magnitudes, q);
        out[t] = _mm256_add_epi32(out[t], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
      }
    }
  }
};
struct I4 {
  static constexpr DType kType = DType::kI4;
  template <std::size_t kT>
  static void sums(const std::byte* group, std::size_t groups, const PackedGroup* tokens, __m256i (&out)[kT]) {
    EDGE_UNROLL
    for (std::size_t t = 0; t < kT; ++t) out[t] = _mm256_setzero_si256();
    const __m256i low = _mm256_set1_epi8(15);
    EDGE_UNROLL
    for (std::size_t w = 0; w < kWords / 2; ++w) {
      const __m256i both = load(group + w * kLineBytes);
      const __m256i first = _mm256_and_si256(both, low);
      const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) {
        const std::int8_t* const q = tokens[t * groups].q + w * kPackedWord;
        out[t] = _mm256_add_epi16(out[t], _mm256_maddubs_epi16(first, word_of(q)));
        out[t] = _mm256_add_epi16(out[t], _mm256_maddubs_epi16(second, word_of(q + kPackedColumns / 2)));
      }
    }
    EDGE_UNROLL
    for (std::size_t t = 0; t < kT; ++t) {
      out[t] = _mm256_add_epi32(_mm256_madd_epi16(out[t], _mm256_set1_epi16(1)),
                                _mm256_set1_epi32(tokens[t * groups].start_i4));
    }
  }
};

template <class Form>
struct Block {
  static constexpr DType kType = Form::kType;
  static constexpr std::size_t kTokens = 2;

  template <std::size_t kT>
  static void multiply(const std::byte* data, const std::byte* scales, const PackedGroup* tokens, std::size_t groups,
                       float* y, std::size_t stride) {
    constexpr std::size_t kGroupBytes = packed_block_bytes(Form::kType, kPackedColumns);
    __m256 sums[kHalves][kT];
    EDGE_UNROLL
    for (std::size_t half = 0; half < kHalves; ++half) {
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) sums[half][t] = _mm256_setzero_ps();
    }
    for (std::size_t g = 0; g < groups; ++g) {
      const std::byte* const group = data + g * kGroupBytes;
      if constexpr (kT == 1) {
        EDGE_UNROLL
        for (std::size_t i = 0; i < kGroupBytes; i += kLineBytes) __builtin_prefetch(group + kPackedAhead + i, 0, 2);
      }
      EDGE_UNROLL
      for (std::size_t half = 0; half < kHalves; ++half) {
        __m256i products[kT];
        Form::template sums<kT>(group + half * 32, groups, tokens + g, products);
        // NOLINTNEXTLINE(misc-const-correctness): assigned where the rows are i4
        __m256 scale = _mm256_setzero_ps();
        if constexpr (Form::kType == DType::kI4) {
          const std::byte* const of_rows = scales + (g * kPackedRows + half * 8) * 2;
          scale = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(of_rows)));
        }
        EDGE_UNROLL
        for (std::size_t t = 0; t < kT; ++t) {
          const __m256 by = _mm256_set1_ps(tokens[t * groups + g].scale);
          sums[half][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[t]),
                                          Form::kType == DType::kI4 ? _mm256_mul_ps(scale, by) : by, sums[half][t]);
        }
      }
    }
    EDGE_UNROLL
    for (std::size_t half = 0; half < kHalves; ++half) {
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) {
        if constexpr (Form::kType == DType::kI8) {
          sums[half][t] =
              _mm256_mul_ps(sums[half][t], _mm256_loadu_ps(reinterpret_cast<const float*>(scales) + half * 8));
        }
        _mm256_storeu_ps(y + t * stride + half * 8, sums[half][t]);
      }
    }
  }
};

}  // namespace

constinit const PackedKernels kAvx2PackedKernels = {quantise, multiply_packed<Block<I8>>, multiply_packed<Block<I4>>};

}  // namespace edge::kernels
