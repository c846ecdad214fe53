// AVX-512 with VNNI: VPDPBUSD multiplies 16 rows' words with a token's word, which it broadcasts out of memory. It
// takes unsigned weights (i8: +128, i4: the stored 0..15, which is +8), so a group's sum starts at minus the offset's
// share.
#include <immintrin.h>

#include "kernels/instruction_set.h"
#include "kernels/packed_tiles.h"

namespace edge::kernels {
namespace {

constexpr std::size_t kLineBytes = 64;

__m512i load(const std::byte* from) { return _mm512_loadu_si512(from); }

__m512i word_of(const std::int8_t* q) {
  std::int32_t word = 0;
  std::memcpy(&word, q, sizeof word);
  return _mm512_set1_epi32(word);
}

void quantise(const float* x, std::size_t d, PackedGroup* out) {
  for (std::size_t begin = 0; begin < d; begin += kPackedColumns, ++out) {
    const std::size_t count = d - begin;
    const auto low_mask = static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1U << count) - 1);
    const auto high_mask = static_cast<__mmask16>(count >= 32 ? 0xFFFF : count <= 16 ? 0 : (1U << (count - 16)) - 1);
    const __m512 low = _mm512_maskz_loadu_ps(low_mask, x + begin);
    const __m512 high = _mm512_maskz_loadu_ps(high_mask, x + begin + 16);
    // Magnitudes order like their bits, NaN above infinity.
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    const TokenScale scale = scale_of<kPackedLimit>(
        _mm512_reduce_max_epi32(_mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                                                 _mm512_and_si512(_mm512_castps_si512(high), magnitude))),
        kSmallestGroup);
    const __m512 inverse = _mm512_set1_ps(scale.inverse);
    const __m512i first = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
    const __m512i second = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    // What is not finite becomes the smallest integer, and 0 here.
    const __m512i mask = _mm512_set1_epi32(scale.inverse == 0 ? 0 : -1);
    const __m512i first_q = _mm512_and_si512(first, mask);
    const __m512i second_q = _mm512_and_si512(second, mask);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out->q), _mm512_cvtepi32_epi8(first_q));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out->q + 16), _mm512_cvtepi32_epi8(second_q));
    out->scale = scale.scale;
    const std::int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(first_q, second_q));
    out->start_i8 = -128 * sum;
    out->start_i4 = -8 * sum;
  }
}

// The words of a group's 16 rows as unsigned bytes, for columns 4 w to 4 w + 3 in words[w].
struct I8 {
  static constexpr DType kType = DType::kI8;
  static std::int32_t start(const PackedGroup& token) { return token.start_i8; }
  static void unpack(const std::byte* from, __m512i (&words)[8]) {
    EDGE_UNROLL
    for (std::size_t w = 0; w < 8; ++w) {
      words[w] = _mm512_xor_si512(load(from + w * kLineBytes), _mm512_set1_epi8(static_cast<char>(128)));
    }
  }
};
struct I4 {
  static constexpr DType kType = DType::kI4;
  static std::int32_t start(const PackedGroup& token) { return token.start_i4; }
  static void unpack(const std::byte* from, __m512i (&words)[8]) {
    const __m512i low = _mm512_set1_epi8(15);
    EDGE_UNROLL
    for (std::size_t w = 0; w < 4; ++w) {
      const __m512i both = load(from + w * kLineBytes);
      words[w] = _mm512_and_si512(both, low);
      words[w + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
  }
};

template <class Form>
struct Block {
  static constexpr DType kType = Form::kType;
  static constexpr std::size_t kTokens = 8;

  template <std::size_t kT>
  static void multiply(const std::byte* data, const std::byte* scales, const PackedGroup* tokens, std::size_t groups,
                       float* y, std::size_t stride) {
    constexpr std::size_t kGroupBytes = packed_block_bytes(Form::kType, kPackedColumns);
    __m512 sums[kT];
    EDGE_UNROLL
    for (std::size_t t = 0; t < kT; ++t) sums[t] = _mm512_setzero_ps();
    for (std::size_t g = 0; g < groups; ++g) {
      __m512i words[8];
      if constexpr (kT == 1) {
        EDGE_UNROLL
        for (std::size_t i = 0; i < kGroupBytes; i += kLineBytes) {
          __builtin_prefetch(data + g * kGroupBytes + kPackedAhead + i, 0, 2);
        }
      }
      Form::unpack(data + g * kGroupBytes, words);
      // NOLINTNEXTLINE(misc-const-correctness): assigned where the rows are i4
      __m512 scale = _mm512_setzero_ps();
      if constexpr (Form::kType == DType::kI4) {
        const std::byte* const of_group = scales + g * kPackedRows * 2;
        if (kT == 1 && g % 2 == 0) __builtin_prefetch(of_group + kPackedAhead / 8, 0, 2);
        scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(of_group)));
      }
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) {
        const PackedGroup& token = tokens[t * groups + g];
        // Two sums, so that one does not wait for all eight products.
        __m512i first = _mm512_set1_epi32(Form::start(token));
        __m512i second = _mm512_setzero_si512();
        EDGE_UNROLL
        for (std::size_t w = 0; w < 4; ++w) {
          first = _mm512_dpbusd_epi32(first, words[w], word_of(token.q + w * kPackedWord));
          second = _mm512_dpbusd_epi32(second, words[w + 4], word_of(token.q + (w + 4) * kPackedWord));
        }
        const __m512 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(first, second));
        const __m512 by = _mm512_set1_ps(token.scale);
        sums[t] = _mm512_fmadd_ps(sum, Form::kType == DType::kI4 ? _mm512_mul_ps(scale, by) : by, sums[t]);
      }
    }
    EDGE_UNROLL
    for (std::size_t t = 0; t < kT; ++t) {
      if constexpr (Form::kType == DType::kI8) {
        sums[t] = _mm512_mul_ps(sums[t], _mm512_loadu_ps(reinterpret_cast<const float*>(scales)));
      }
      _mm512_storeu_ps(y + t * stride, sums[t]);
    }
  }
};

}  // namespace

constinit const PackedKernels kAvx512PackedKernels = {quantise, multiply_packed<Block<I8>>, multiply_packed<Block<I4>>};

}  // namespace edge::kernels
