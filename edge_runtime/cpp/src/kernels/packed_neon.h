// Packed products on NEON, shared by its two files: what they differ in is a Product, which adds the products of four
// rows' words with a token's word: step<word>(sums, weights, q), where q holds four words of the token.
// Everything is in an unnamed namespace: each file needs its own copy, compiled with its own flags.
#pragma once

#include <arm_neon.h>

#include "kernels/instruction_set.h"
#include "kernels/packed_tiles.h"

namespace edge::kernels {
namespace {

constexpr std::size_t kVectorBytes = 16;
constexpr std::size_t kQuarters = 4;  // of a block: 4 rows each
constexpr std::size_t kFours = kPackedColumns / 4;

inline void quantise_packed(const float* x, std::size_t d, PackedGroup* out) {
  for (std::size_t begin = 0; begin < d; begin += kPackedColumns, ++out) {
    float padded[kPackedColumns] = {};
    const float* from = x + begin;
    if (d - begin < kPackedColumns) {
      std::memcpy(padded, from, (d - begin) * sizeof(float));
      from = padded;
    }
    uint32x4_t largest = vdupq_n_u32(0);
    for (std::size_t i = 0; i < kFours; ++i) {
      // Magnitudes order like their bits, NaN above infinity.
      const uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(from + 4 * i));
      largest = vmaxq_u32(largest, vandq_u32(bits, vdupq_n_u32(0x7FFFFFFFU)));
    }
    const TokenScale scale = scale_of<kPackedLimit>(static_cast<std::int32_t>(vmaxvq_u32(largest)), kSmallestGroup);
    // What is not finite becomes some integer, and 0 here.
    const int32x4_t mask = vdupq_n_s32(scale.inverse == 0 ? 0 : -1);
    const auto integers = [&](std::size_t i) {
      return vandq_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(from + 4 * i), scale.inverse)), mask);
    };
    int32x4_t sums = vdupq_n_s32(0);
    for (std::size_t i = 0; i < kFours; i += 2) {
      const int32x4_t first = integers(i);
      const int32x4_t second = integers(i + 1);
      sums = vaddq_s32(sums, vaddq_s32(first, second));
      vst1_s8(out->q + 4 * i, vmovn_s16(vcombine_s16(vmovn_s32(first), vmovn_s32(second))));
    }
    const std::int32_t sum = vaddvq_s32(sums);
    out->scale = scale.scale;
    out->start_i8 = -128 * sum;
    out->start_i4 = -8 * sum;
  }
}

template <class Product, DType kRowType>
struct Block {
  static constexpr DType kType = kRowType;
  static constexpr std::size_t kTokens = 2;
  static constexpr std::size_t kGroupBytes = packed_block_bytes(kType, kPackedColumns);
  static constexpr std::size_t kWordBytes = kPackedRows * kPackedWord;

  static int8x16_t load(const std::byte* from) { return vld1q_s8(reinterpret_cast<const std::int8_t*>(from)); }

  // Four words' products with the half of a group that q has; `high`: of i4, the upper halves of bytes.
  template <std::size_t kT, bool kHigh, std::size_t kWord = 0>
  static void add_words(const std::byte* words, const int8x16_t (&q)[kT], int32x4_t (&sums)[kT][kQuarters]) {
    for (std::size_t quarter = 0; quarter < kQuarters; ++quarter) {
      int8x16_t weights = load(words + kWord * kWordBytes + quarter * kVectorBytes);
      if constexpr (kType == DType::kI4) {
        const uint8x16_t both = vreinterpretq_u8_s8(weights);
        weights = vreinterpretq_s8_u8(kHigh ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15)));
      }
      for (std::size_t t = 0; t < kT; ++t) {
        sums[t][quarter] = Product::template step<kWord>(sums[t][quarter], weights, q[t]);
      }
    }
    if constexpr (kWord < 3) add_words<kT, kHigh, kWord + 1>(words, q, sums);
  }

  template <std::size_t kT>
  static void multiply(const std::byte* data, const std::byte* scales, const PackedGroup* tokens, std::size_t groups,
                       float* y, std::size_t stride) {
    float32x4_t totals[kT][kQuarters];
    for (auto& of_token : totals) {
      for (float32x4_t& total : of_token) total = vdupq_n_f32(0);
    }
    for (std::size_t g = 0; g < groups; ++g) {
      const std::byte* const group = data + g * kGroupBytes;
      if constexpr (kT == 1) {
        for (std::size_t i = 0; i < kGroupBytes; i += 64) __builtin_prefetch(group + kPackedAhead + i, 0, 2);
      }
      int32x4_t sums[kT][kQuarters];
      int8x16_t first[kT];
      int8x16_t second[kT];
      for (std::size_t t = 0; t < kT; ++t) {
        const PackedGroup& token = tokens[t * groups + g];
        first[t] = vld1q_s8(token.q);
        second[t] = vld1q_s8(token.q + kPackedColumns / 2);
        const int32x4_t start = vdupq_n_s32(kType == DType::kI4 ? token.start_i4 : 0);
        for (int32x4_t& sum : sums[t]) sum = start;
      }
      add_words<kT, false>(group, first, sums);
      add_words<kT, true>(kType == DType::kI4 ? group : group + 4 * kWordBytes, second, sums);
      for (std::size_t quarter = 0; quarter < kQuarters; ++quarter) {
        float32x4_t scale = vdupq_n_f32(1);
        if constexpr (kType == DType::kI4) {
          const std::byte* const bits = scales + (g * kPackedRows + quarter * 4) * 2;
          scale = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(bits))));
        }
        for (std::size_t t = 0; t < kT; ++t) {
          const float32x4_t by = vmulq_n_f32(scale, tokens[t * groups + g].scale);
          totals[t][quarter] = vfmaq_f32(totals[t][quarter], vcvtq_f32_s32(sums[t][quarter]), by);
        }
      }
    }
    for (std::size_t t = 0; t < kT; ++t) {
      for (std::size_t quarter = 0; quarter < kQuarters; ++quarter) {
        float32x4_t total = totals[t][quarter];
        if constexpr (kType == DType::kI8) {
          total = vmulq_f32(total, vld1q_f32(reinterpret_cast<const float*>(scales) + quarter * 4));
        }
        vst1q_f32(y + t * stride + quarter * 4, total);
      }
    }
  }
};

template <class Product>
constexpr PackedKernels packed_neon_kernels() {
  return {quantise_packed, multiply_packed<Block<Product, DType::kI8>>, multiply_packed<Block<Product, DType::kI4>>};
}

}  // namespace
}  // namespace edge::kernels
