// AVX-512 with VNNI. VPDPBUSD multiplies unsigned by signed bytes, so the weights are taken with an offset (i8: +128,
// i4: the stored 0..15, which is +8), the two bytes of an activation are the signed operands, and each accumulator
// starts at minus the offset's share. The BF16 extension is not used: rounding x to bf16 costs more accuracy than it
// gives speed to a kernel that waits for memory, and two of its products, for both halves of x, are no faster than one
// FMA.
#include "kernels/avx512.h"

#include <cstdint>

#include "kernels/avx512_add.h"
#include "kernels/avx512_tokens.h"

namespace edge::kernels {
namespace {

constexpr std::size_t kVector = 64;

// 256 * high + low as floats.
__m512 join(__m512i high, __m512i low) { return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 8), low)); }

// A token for i8 rows: [scale, padded] [a starting accumulator for each segment] [high, low of 64 columns] ...
struct I8 {
  static constexpr DType kType = DType::kI8;
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 2;

  static std::size_t planes(std::size_t d) { return kVector * (1 + (d + kSegment - 1) / kSegment); }
  static std::size_t prepared_bytes(std::size_t d) { return planes(d) + (d + kVector - 1) / kVector * 2 * kVector; }

  static void prepare(const float* x, std::size_t d, std::byte* out) {
    const __m512 inverse = scale_of(x, d, out);
    std::byte* to = out + planes(d);
    for (std::size_t begin = 0; begin < d; begin += kSegment) {
      const std::size_t end = d - begin < kSegment ? d : begin + kSegment;
      __m512i high = _mm512_setzero_si512();
      __m512i low = _mm512_setzero_si512();
      for (std::size_t i = begin; i < end; i += kVector, to += 2 * kVector) {
        split_line(x, i, d, inverse, to, to + kVector);
        const __m512i offset = _mm512_set1_epi8(static_cast<char>(128));
        high = _mm512_dpbusd_epi32(high, offset, load(to));
        low = _mm512_dpbusd_epi32(low, offset, load(to + kVector));
      }
      const __m512i start = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_add_epi32(_mm512_slli_epi32(high, 8), low));
      _mm512_storeu_si512(out + kVector * (1 + begin / kSegment), start);
    }
  }

  template <std::size_t kR, std::size_t kT>
  static void sums(const std::byte* rows, const std::byte* /*scales*/, const std::byte* tokens,
                   std::size_t token_stride, std::size_t d, __m512 (&out)[kR][kT]) {
    EDGE_UNROLL
    for (std::size_t r = 0; r < kR; ++r) {
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) out[r][t] = _mm512_setzero_ps();
    }
    const std::byte* plane = tokens + planes(d);
    for (std::size_t begin = 0; begin < d; begin += kSegment) {
      const std::size_t end = d - begin < kSegment ? d : begin + kSegment;
      Sums<kR, kT> some;
      Sums<kR, kT> others;
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) {
        const __m512i start = load(tokens + t * token_stride + kVector * (1 + begin / kSegment));
        EDGE_UNROLL
        for (std::size_t r = 0; r < kR; ++r) {
          some.high[r][t] = others.high[r][t] = others.low[r][t] = _mm512_setzero_si512();
          some.low[r][t] = start;
        }
      }
      std::size_t i = begin;
      if constexpr (kR * kT == 1) {  // two steps that do not wait for each other
        for (; i + 2 * kVector <= end; i += 2 * kVector) {
          step(rows + i, d, kVector, plane + 2 * i, token_stride, some);
          step(rows + i + kVector, d, kVector, plane + 2 * (i + kVector), token_stride, others);
        }
      }
      for (; i + kVector <= end; i += kVector) step(rows + i, d, kVector, plane + 2 * i, token_stride, some);
      if (i < end) step(rows + i, d, end - i, plane + 2 * i, token_stride, some);
      EDGE_UNROLL
      for (std::size_t r = 0; r < kR; ++r) {
        EDGE_UNROLL
        for (std::size_t t = 0; t < kT; ++t) {
          const __m512i high = _mm512_add_epi32(some.high[r][t], others.high[r][t]);
          const __m512i low = _mm512_add_epi32(some.low[r][t], others.low[r][t]);
          out[r][t] = _mm512_add_ps(out[r][t], join(high, low));
        }
      }
    }
  }

 private:
  template <std::size_t kR, std::size_t kT>
  struct Sums {
    __m512i high[kR][kT];
    __m512i low[kR][kT];
  };

  // `count` <= 64 columns.
  template <std::size_t kR, std::size_t kT>
  static void step(const std::byte* rows, std::size_t row_stride, std::size_t count, const std::byte* x,
                   std::size_t token_stride, Sums<kR, kT>& sums) {
    __m512i w[kR];
    EDGE_UNROLL
    for (std::size_t r = 0; r < kR; ++r) {
      const std::byte* const row = rows + r * row_stride;
      const __m512i signed_w = count == kVector ? load(row) : _mm512_maskz_loadu_epi8((1ULL << count) - 1, row);
      w[r] = _mm512_xor_si512(signed_w, _mm512_set1_epi8(static_cast<char>(128)));
    }
    EDGE_UNROLL
    for (std::size_t t = 0; t < kT; ++t) {
      const __m512i x_high = load(x + t * token_stride);
      const __m512i x_low = load(x + t * token_stride + kVector);
      EDGE_UNROLL
      for (std::size_t r = 0; r < kR; ++r) {
        sums.high[r][t] = _mm512_dpbusd_epi32(sums.high[r][t], w[r], x_high);
        sums.low[r][t] = _mm512_dpbusd_epi32(sums.low[r][t], w[r], x_low);
      }
    }
  }
};

// A token for i4 rows: [scale, padded], then for each 512 columns, which are four lines of four groups, a group a lane
// of 128 bits: for each line [high of the groups' first halves] [high of the second] [low, first] [low, second]; behind
// them [what is added to the groups' sums], in the order of lane_sums. So a group's sum is multiplied by its scale
// once, not once for each of four parts of it.
struct I4 {
  static constexpr DType kType = DType::kI4;
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 2;
  static constexpr std::size_t kLines = 4;
  static constexpr std::size_t kLineColumns = 128;
  static constexpr std::size_t kColumns = kLines * kLineColumns;
  static constexpr std::size_t kBlock = (4 * kLines + 1) * kVector;

  static std::size_t prepared_bytes(std::size_t d) { return kVector + (d + kColumns - 1) / kColumns * kBlock; }

  static void prepare(const float* x, std::size_t d, std::byte* out) {
    const __m512 inverse = scale_of(x, d, out);
    const __m512i offset = _mm512_set1_epi8(8);
    const __m512i none = _mm512_setzero_si512();
    std::byte* to = out + kVector;
    for (std::size_t i = 0; i < d; i += kColumns) {
      __m512i sums[kLines];
      for (std::size_t line = 0; line < kLines; ++line, to += 4 * kVector) {
        for (std::size_t half = 0; half < 8; ++half) {
          const std::size_t column = i + line * kLineColumns + half * 16;
          const __m512i q = column < d ? quantise(x + column, 16, inverse) : none;
          std::byte* high = to + half % 2 * kVector + half / 2 * 16;
          split(q, high, high + 2 * kVector);
        }
        sums[line] = products(offset, offset, to);
      }
      _mm512_storeu_si512(to, _mm512_sub_epi32(none, lane_sums(sums)));
      to += kVector;
    }
  }

  template <std::size_t kR, std::size_t kT>
  static void sums(const std::byte* rows, const std::byte* scales, const std::byte* tokens, std::size_t token_stride,
                   std::size_t d, __m512 (&out)[kR][kT]) {
    const std::size_t scale_stride = d / kI4Group * 2;
    const __m512i by_lane = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    EDGE_UNROLL
    for (std::size_t r = 0; r < kR; ++r) {
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) out[r][t] = _mm512_setzero_ps();
    }
    const std::byte* x = tokens + kVector;
    for (std::size_t i = 0; i < d; i += kColumns, x += kBlock) {
      const std::size_t groups = (d - i < kColumns ? d - i : kColumns) / kI4Group;
      const auto there = static_cast<__mmask16>((1U << groups) - 1);
      EDGE_UNROLL
      for (std::size_t r = 0; r < kR; ++r) {
        const std::byte* const row = rows + r * (d / 2) + i / 2;
        const std::byte* const of_row = scales + r * scale_stride + i / kI4Group * 2;
        const __m512 scale = _mm512_permutexvar_ps(by_lane, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, of_row)));
        __m512i first[kLines];
        __m512i second[kLines];
        EDGE_UNROLL
        for (std::size_t line = 0; line < kLines; ++line) {
          const __m512i packed = load_groups(row + line * kVector, groups, line);
          first[line] = _mm512_and_si512(packed, _mm512_set1_epi8(15));
          second[line] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), _mm512_set1_epi8(15));
        }
        EDGE_UNROLL
        for (std::size_t t = 0; t < kT; ++t) {
          const std::byte* const at = x + t * token_stride;
          __m512i lines[kLines];
          EDGE_UNROLL
          for (std::size_t line = 0; line < kLines; ++line) {
            lines[line] = products(first[line], second[line], at + line * 4 * kVector);
          }
          const __m512i of_groups = _mm512_add_epi32(lane_sums(lines), load(at + 4 * kLines * kVector));
          out[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(of_groups), scale, out[r][t]);
        }
      }
    }
  }

 private:
  // A line's bytes of the groups that there are, of `groups` in all its lines; zeros behind them.
  static __m512i load_groups(const std::byte* from, std::size_t groups, std::size_t line) {
    if (groups >= 4 * (line + 1)) return load(from);
    if (groups <= 4 * line) return _mm512_setzero_si512();
    return _mm512_maskz_loadu_epi32(static_cast<__mmask16>((1U << (4 * (groups - 4 * line))) - 1), from);
  }

  // Of a line with the prepared token: 256 times the products with the high bytes, and those with the low ones.
  static __m512i products(__m512i first, __m512i second, const std::byte* x) {
    const __m512i high =
        _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), first, load(x)), second, load(x + kVector));
    const __m512i low = _mm512_dpbusd_epi32(_mm512_slli_epi32(high, 8), first, load(x + 2 * kVector));
    return _mm512_dpbusd_epi32(low, second, load(x + 3 * kVector));
  }
};

}  // namespace

constinit const Kernels kAvx512Kernels = kernels_over<Avx512, I8, I4>();

}  // namespace edge::kernels
