// NEON, shared by its three files: what they differ in is a Product, the exact sums of i8 weights and 16-bit
// activations.
//
// A Product gives: store, which lays out 16 columns of q in 32 bytes; and Sums<rows, tokens>, integer accumulators with
// clear, step (16 columns of each row against each token) and drain (to float sums, times a scale a row).
// Everything is in an unnamed namespace: each file needs its own copy, compiled with its own flags.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "kernels/instruction_set.h"

namespace edge::kernels {
namespace {

// The fp16 extension is not used: sums in f16 would cost accuracy, and the conversion to f32 is in the baseline.
struct Neon {
  using F = float32x4_t;
  static constexpr std::size_t kLanes = 4;
  static constexpr std::size_t kDotRows = 4;
  static constexpr std::size_t kDotTokens = 2;
  static constexpr std::size_t kDotSums = 2;
  static constexpr std::size_t kAddTokens = 2;
  static constexpr std::size_t kVectors = kI4Group / kLanes;

  static F zero() { return vdupq_n_f32(0); }
  static F broadcast(float v) { return vdupq_n_f32(v); }
  static F load(const float* from) { return vld1q_f32(from); }
  static void store(float* to, F v) { vst1q_f32(to, v); }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F div(F a, F b) { return vdivq_f32(a, b); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F min(F a, F b) { return vminq_f32(a, b); }
  static F max(F a, F b) { return vmaxq_f32(a, b); }
  static F round(F v) { return vrndnq_f32(v); }
  // In two steps, as 2^n alone may be beyond an exponent.
  static F scale_by_power_of_two(F v, F n) {
    const int32x4_t whole = vcvtq_s32_f32(n);
    const int32x4_t half = vshrq_n_s32(whole, 1);
    return mul(mul(v, power_of_two(half)), power_of_two(vsubq_s32(whole, half)));
  }
  static F power_of_two(int32x4_t n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)); }
  static float largest(F v) { return vmaxvq_f32(v); }
  static float sum(F v) { return vaddvq_f32(v); }
  static void sum4(F a, F b, F c, F d, float* to) { vst1q_f32(to, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d))); }

  static F f16(const std::byte* from) { return vcvt_f32_f16(vreinterpret_f16_u16(load_words(from))); }
  static void store_f16(std::byte* to, F v) {
    vst1_u16(reinterpret_cast<std::uint16_t*>(to), vreinterpret_u16_f16(vcvt_f16_f32(v)));
  }
  static F bf16(const std::byte* from) { return vreinterpretq_f32_u32(vshll_n_u16(load_words(from), 16)); }
  static F broadcast_f16(const std::byte* from) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, from, sizeof bits);
    return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits)));
  }

  using I = int32x4_t;
  static F as_floats(I v) { return vreinterpretq_f32_s32(v); }
  static I as_ints(F v) { return vreinterpretq_s32_f32(v); }
  static I zero_ints() { return vdupq_n_s32(0); }
  static I to_ints(F v) { return vcvtnq_s32_f32(v); }
  static I add_ints(I a, I b) { return vaddq_s32(a, b); }
  static I times_minus_8(I v) { return vnegq_s32(vshlq_n_s32(v, 3)); }
  static I pack(I low, I high) { return vsliq_n_s32(low, high, 16); }
  // Magnitudes order like their bits, NaN above infinity.
  static F magnitude_max(F largest, F v) {
    return as_floats(vmaxq_s32(as_ints(largest), vandq_s32(as_ints(v), vdupq_n_s32(0x7FFFFFFF))));
  }
  static F zero_if_less(F v, F value, F bound) {
    return as_floats(vbicq_s32(as_ints(v), vreinterpretq_s32_u32(vcltq_f32(value, bound))));
  }

  struct Pair {
    int16x8_t first[4];
    int16x8_t second[4];
  };
  template <DType kType>
  static Pair pair(const std::byte* first, const std::byte* second) {
    Pair pair;
    widen<kType>(first, pair.first);
    widen<kType>(second, pair.second);
    return pair;
  }
  template <DType kType>
  static void widen(const std::byte* from, int16x8_t (&out)[4]) {
    int8x16_t halves[2] = {load_bytes(from), load_bytes(from)};
    if constexpr (kType == DType::kI8) {
      halves[1] = load_bytes(from + 16);
    } else {
      const uint8x16_t packed = vreinterpretq_u8_s8(halves[0]);
      halves[0] = vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15)));
      halves[1] = vreinterpretq_s8_u8(vshrq_n_u8(packed, 4));
    }
    for (std::size_t half = 0; half < 2; ++half) {
      out[2 * half] = vmovl_s8(vget_low_s8(halves[half]));
      out[2 * half + 1] = vmovl_high_s8(halves[half]);
    }
  }
  static void accumulate(const Pair& pair, const float* weights, I (&sums)[kVectors]) {
    std::int16_t both[2];
    std::memcpy(both, weights, sizeof both);
    for (std::size_t v = 0; v < 4; ++v) {
      sums[2 * v] = vmlal_n_s16(sums[2 * v], vget_low_s16(pair.first[v]), both[0]);
      sums[2 * v] = vmlal_n_s16(sums[2 * v], vget_low_s16(pair.second[v]), both[1]);
      sums[2 * v + 1] = vmlal_high_n_s16(sums[2 * v + 1], pair.first[v], both[0]);
      sums[2 * v + 1] = vmlal_high_n_s16(sums[2 * v + 1], pair.second[v], both[1]);
    }
  }
  template <DType kType>
  static void in_order(const I (&sums)[kVectors], F (&values)[kVectors]) {
    for (std::size_t v = 0; v < kVectors; ++v) values[v] = vcvtq_f32_s32(sums[v]);
  }

  static uint16x4_t load_words(const std::byte* from) { return vld1_u16(reinterpret_cast<const std::uint16_t*>(from)); }
  static int8x16_t load_bytes(const std::byte* from) { return vld1q_s8(reinterpret_cast<const std::int8_t*>(from)); }
  // q - 8 of a group's columns 0..15 and 16..31.
  static int8x16_t first_half(const std::byte* from) {
    const uint8x16_t packed = vreinterpretq_u8_s8(load_bytes(from));
    return vsubq_s8(vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15))), vdupq_n_s8(8));
  }
  static int8x16_t second_half(const std::byte* from) {
    const uint8x16_t packed = vreinterpretq_u8_s8(load_bytes(from));
    return vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(packed, 4)), vdupq_n_s8(8));
  }
};

constexpr std::size_t kHeader = 64;
constexpr std::size_t kStep = 16;  // columns of a step
constexpr std::size_t kStepBytes = 2 * kStep;

// kStep columns of q: q = 256 * high + low, both signed bytes.
struct Split {
  int8x16_t high;
  int8x16_t low;
};

inline Split split(int16x8_t first, int16x8_t second) {
  const int16x8_t half = vdupq_n_s16(128);
  return {vcombine_s8(vshrn_n_s16(vaddq_s16(first, half), 8), vshrn_n_s16(vaddq_s16(second, half), 8)),
          vcombine_s8(vmovn_s16(first), vmovn_s16(second))};
}

// Products with rows of kType, i8 or i4. A prepared token: [scale, padded] [Product::store of each 16 columns].
template <class Product, DType kRowType>
struct Quantised {
  static constexpr DType kType = kRowType;
  static constexpr std::size_t kRows = Product::kRows;
  static constexpr std::size_t kTokens = Product::kTokens;

  static std::size_t prepared_bytes(std::size_t d) { return kHeader + (d + 31) / 32 * 64; }

  static void prepare(const float* x, std::size_t d, std::byte* out) {
    const auto floats = [&](std::size_t i) {
      if (i >= d) return Neon::zero();
      if (d - i < 4) return load_tail<Neon, DType::kF32>(reinterpret_cast<const std::byte*>(x), i, d - i);
      return vld1q_f32(x + i);
    };
    uint32x4_t largest = vdupq_n_u32(0);
    for (std::size_t i = 0; i < d; i += 4) {
      // Magnitudes order like their bits, NaN above infinity.
      largest = vmaxq_u32(largest, vandq_u32(vreinterpretq_u32_f32(floats(i)), vdupq_n_u32(0x7FFFFFFFU)));
    }
    const TokenScale scale = token_scale(static_cast<std::int32_t>(vmaxvq_u32(largest)));
    std::memset(out, 0, prepared_bytes(d));
    std::memcpy(out, &scale.scale, sizeof scale.scale);
    for (std::size_t i = 0; i < d; i += kStep) {
      const auto words = [&](std::size_t at) {
        return vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(floats(at), scale.inverse)));
      };
      Product::store(vcombine_s16(words(i), words(i + 4)), vcombine_s16(words(i + 8), words(i + 12)),
                     out + kHeader + i * 2);
    }
  }

  template <std::size_t kR, std::size_t kT>
  static void sums(const std::byte* rows, const std::byte* scales, const std::byte* tokens, std::size_t token_stride,
                   std::size_t d, float32x4_t (&out)[kR][kT]) {
    using Sums = typename Product::template Sums<kR, kT>;
    const std::size_t stride = bytes_of<kType>(d);
    const std::byte* x = tokens + kHeader;
    Sums products;
    float32x4_t floats[Sums::kFloats];
    for (float32x4_t& f : floats) f = Neon::zero();
    int8x16_t w[kR];
    float scale[kR];
    if constexpr (kType == DType::kI4) {
      for (std::size_t i = 0; i < d; i += kI4Group) {
        products.clear();
        for (std::size_t r = 0; r < kR; ++r) w[r] = Neon::first_half(rows + r * stride + i / 2);
        products.step(w, x + i * 2, token_stride);
        for (std::size_t r = 0; r < kR; ++r) w[r] = Neon::second_half(rows + r * stride + i / 2);
        products.step(w, x + i * 2 + kStepBytes, token_stride);
        for (std::size_t r = 0; r < kR; ++r) {
          scale[r] = vgetq_lane_f32(Neon::broadcast_f16(scales + (r * (d / kI4Group) + i / kI4Group) * 2), 0);
        }
        products.drain(scale, floats);
      }
    } else {
      for (std::size_t r = 0; r < kR; ++r) scale[r] = 1;
      for (std::size_t begin = 0; begin < d; begin += kSegment) {
        const std::size_t end = d - begin < kSegment ? d : begin + kSegment;
        products.clear();
        std::size_t i = begin;
        for (; i + kStep <= end; i += kStep) {
          for (std::size_t r = 0; r < kR; ++r) w[r] = Neon::load_bytes(rows + r * stride + i);
          products.step(w, x + i * 2, token_stride);
        }
        if (i < end) {
          for (std::size_t r = 0; r < kR; ++r) {
            std::byte padded[kStep] = {};
            std::memcpy(padded, rows + r * stride + i, end - i);
            w[r] = Neon::load_bytes(padded);
          }
          products.step(w, x + i * 2, token_stride);
        }
        products.drain(scale, floats);
      }
    }
    for (std::size_t r = 0; r < kR; ++r) {
      for (std::size_t t = 0; t < kT; ++t) out[r][t] = Sums::total(floats, r, t);
    }
  }
};

template <class Product>
constexpr Kernels neon_kernels() {
  return kernels_over<Neon, Quantised<Product, DType::kI8>, Quantised<Product, DType::kI4>>();
}

}  // namespace
}  // namespace edge::kernels
