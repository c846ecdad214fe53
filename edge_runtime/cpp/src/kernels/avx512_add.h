// The weighted sum of i8 and i4 rows for one token, four rows at a time: bytes of a column, one of each row, are the
// unsigned operand of VPDPBUSD and the bytes of the four rows' weights the signed one, so that a product of 64 bytes
// takes two instructions where `pair` and `accumulate` take six. Sums of a stripe stay in registers for all rows, which
// come from the second cache: whoever calls has asked for them. The same integers as there, so the same bits.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/add_quantised.h"
#include "kernels/avx512.h"

namespace edge::kernels {
namespace {

inline constexpr std::size_t kStripeBytes = 64;  // of each row
inline constexpr std::size_t kQuad = 4;          // rows at a time

// The 16-bit weights of kSlots groups as two signed bytes, q = 256 * high + low, those of four rows in an integer.
template <std::size_t kSlots>
struct QuadWeights {
  alignas(64) std::int32_t high[kMaxRows / kQuad][kSlots];
  alignas(64) std::int32_t low[kMaxRows / kQuad][kSlots];
  alignas(64) float start[kSlots];  // bits: where sums begin, as rows are read with an offset
  alignas(64) float scale[kSlots];
};

// As round_weights: kLanes slots from `slot` on.
template <DType kType, std::size_t kSlots, class Weight>
void round_quads(std::size_t rows, std::size_t slot, const Weight& weight, QuadWeights<kSlots>& to) {
  const Rounding<Avx512> rounding = rounding_of<Avx512>(rows, weight);
  Avx512::store(to.scale + slot, rounding.scale);
  const __m512i byte = _mm512_set1_epi32(255);
  __m512i sum = _mm512_setzero_si512();
  for (std::size_t row = 0; row < rows; row += kQuad) {
    __m512i high = _mm512_setzero_si512();
    __m512i low = _mm512_setzero_si512();
    for (std::size_t r = 0; r < kQuad && row + r < rows; ++r) {
      const __m512i q = Avx512::to_ints(Avx512::mul(weight(row + r), rounding.inverse));
      const __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(128)), 8);
      const auto place = static_cast<unsigned>(8 * r);
      high = _mm512_or_si512(high, _mm512_slli_epi32(_mm512_and_si512(upper, byte), place));
      low = _mm512_or_si512(low, _mm512_slli_epi32(_mm512_and_si512(q, byte), place));
      sum = _mm512_add_epi32(sum, q);
    }
    _mm512_store_si512(to.high[row / kQuad] + slot, high);
    _mm512_store_si512(to.low[row / kQuad] + slot, low);
  }
  constexpr unsigned kOffsetBits = kType == DType::kI4 ? 3 : 7;
  const __m512i start = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum, kOffsetBits));
  Avx512::store(to.start + slot, Avx512::as_floats(start));
}

// What holds for a stripe: i8, one slot; i4, the slots of four groups, each in a lane of 128 bits.
template <DType kType>
__m512i of_slots(const std::int32_t* slots) {
  if constexpr (kType == DType::kI8) {
    return _mm512_set1_epi32(*slots);
  } else {
    const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(slots));
    return _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(four));
  }
}

// bytes[k], integer i of lane j: those of column 16 j + 4 k + i, of the four rows in turn.
EDGE_INLINE void interleave(const __m512i (&rows)[kQuad], __m512i (&bytes)[4]) {
  const __m512i first = _mm512_unpacklo_epi8(rows[0], rows[1]);
  const __m512i first_end = _mm512_unpackhi_epi8(rows[0], rows[1]);
  const __m512i second = _mm512_unpacklo_epi8(rows[2], rows[3]);
  const __m512i second_end = _mm512_unpackhi_epi8(rows[2], rows[3]);
  bytes[0] = _mm512_unpacklo_epi16(first, second);
  bytes[1] = _mm512_unpackhi_epi16(first, second);
  bytes[2] = _mm512_unpacklo_epi16(first_end, second_end);
  bytes[3] = _mm512_unpackhi_epi16(first_end, second_end);
}

// Lane j of all four, for each j: back in the order of columns.
EDGE_INLINE void by_lane(__m512i (&sums)[4]) {
  const __m512i low = _mm512_shuffle_i32x4(sums[0], sums[1], 0x44);
  const __m512i high = _mm512_shuffle_i32x4(sums[0], sums[1], 0xEE);
  const __m512i low_end = _mm512_shuffle_i32x4(sums[2], sums[3], 0x44);
  const __m512i high_end = _mm512_shuffle_i32x4(sums[2], sums[3], 0xEE);
  sums[0] = _mm512_shuffle_i32x4(low, low_end, 0x88);
  sums[1] = _mm512_shuffle_i32x4(low, low_end, 0xDD);
  sums[2] = _mm512_shuffle_i32x4(high, high_end, 0x88);
  sums[3] = _mm512_shuffle_i32x4(high, high_end, 0xDD);
}

// One token, columns from `begin` to `end`: see stream_quantised.
template <DType kType>
void Avx512::stream_quads(const Rows& rows, const float* h, std::size_t d, std::size_t begin, std::size_t end,
                          float* y) {
  constexpr bool kHalves = kType == DType::kI4;  // of a byte: two columns
  constexpr std::size_t kParts = kHalves ? 2 : 1;
  constexpr std::size_t kSlots = kHalves ? kSegment / kI4Group : kLanes;
  constexpr std::size_t kColumns = kStripeBytes * kParts;
  QuadWeights<kSlots> weights;
  const std::size_t slots = kHalves ? (end - begin) / kI4Group : 1;
  for (std::size_t slot = 0; slot < slots; slot += kLanes) {
    round_quads<kType>(rows.count, slot,
                       weights_of_groups<Avx512, kType>(rows, h, d, begin / kI4Group + slot, slots - slot), weights);
  }
  const std::size_t stride = bytes_of<kType>(d);
  Following following = following_of<kType>(rows, begin, end);
  for (std::size_t column = begin; column < end; column += kColumns) {
    const std::size_t bytes = bytes_of<kType>(end - column);
    const __mmask64 mask = bytes < kStripeBytes ? (1ULL << bytes) - 1 : ~0ULL;
    const std::size_t slot = kHalves ? (column - begin) / kI4Group : 0;
    __m512i high[kParts][4];
    __m512i low[kParts][4];
    EDGE_UNROLL
    for (std::size_t part = 0; part < kParts; ++part) {
      EDGE_UNROLL
      for (std::size_t k = 0; k < 4; ++k) {
        high[part][k] = _mm512_setzero_si512();
        low[part][k] = of_slots<kType>(reinterpret_cast<const std::int32_t*>(weights.start) + slot);
      }
    }
    const std::byte* data = rows.data + bytes_of<kType>(column);
    for (std::size_t row = 0; row < rows.count; row += kQuad, data += kQuad * stride) {
      __m512i quad[kQuad];
      EDGE_UNROLL
      for (std::size_t r = 0; r < kQuad; ++r) {  // a row that is not there meets the weight 0
        quad[r] = _mm512_maskz_loadu_epi8(mask, row + r < rows.count ? data + r * stride : data);
        if (!kHalves) quad[r] = _mm512_xor_si512(quad[r], _mm512_set1_epi8(static_cast<char>(128)));
      }
      ask(following, kQuad * kStripeBytes);
      const __m512i by_high = of_slots<kType>(weights.high[row / kQuad] + slot);
      const __m512i by_low = of_slots<kType>(weights.low[row / kQuad] + slot);
      __m512i columns[4];
      interleave(quad, columns);
      EDGE_UNROLL
      for (std::size_t k = 0; k < 4; ++k) {
        EDGE_UNROLL
        for (std::size_t part = 0; part < kParts; ++part) {
          __m512i values = columns[k];
          if (part == 1) values = _mm512_srli_epi16(values, 4);
          if (kHalves) values = _mm512_and_si512(values, _mm512_set1_epi8(15));
          high[part][k] = _mm512_dpbusd_epi32(high[part][k], values, by_high);
          low[part][k] = _mm512_dpbusd_epi32(low[part][k], values, by_low);
        }
      }
    }
    EDGE_UNROLL
    for (std::size_t part = 0; part < kParts; ++part) {
      __m512i sums[4];
      EDGE_UNROLL
      for (std::size_t k = 0; k < 4; ++k) {
        sums[k] = _mm512_add_epi32(_mm512_slli_epi32(high[part][k], 8), low[part][k]);
      }
      by_lane(sums);
      EDGE_UNROLL
      for (std::size_t k = 0; k < 4; ++k) {
        const std::size_t at = column + (k * kParts + part) * kLanes;
        if (at >= end) continue;
        const __m512 scale = broadcast(weights.scale[kHalves ? slot + k : 0]);
        const auto here = static_cast<__mmask16>(end - at < kLanes ? (1U << (end - at)) - 1 : 0xFFFF);
        _mm512_mask_storeu_ps(y + at, here, _mm512_mul_ps(_mm512_cvtepi32_ps(sums[k]), scale));
      }
    }
  }
}

}  // namespace
}  // namespace edge::kernels
