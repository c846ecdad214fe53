// The baseline of arm64: weights widened to 16 bits, SMLAL.
#include "kernels/neon.h"

namespace edge::kernels {
namespace {

struct Smlal {
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 2;

  static void store(int16x8_t first, int16x8_t second, std::byte* to) {
    vst1q_s16(reinterpret_cast<std::int16_t*>(to), first);
    vst1q_s16(reinterpret_cast<std::int16_t*>(to) + 8, second);
  }

  template <std::size_t kR, std::size_t kT>
  struct Sums {
    static constexpr std::size_t kFloats = kR * kT;
    int32x4_t sums[kR][kT];

    void clear() {
      for (auto& row : sums) {
        for (int32x4_t& sum : row) sum = vdupq_n_s32(0);
      }
    }
    void step(const int8x16_t (&w)[kR], const std::byte* x, std::size_t token_stride) {
      for (std::size_t r = 0; r < kR; ++r) {
        const int16x8_t low = vmovl_s8(vget_low_s8(w[r]));
        const int16x8_t high = vmovl_high_s8(w[r]);
        for (std::size_t t = 0; t < kT; ++t) {
          const auto* q = reinterpret_cast<const std::int16_t*>(x + t * token_stride);
          const int16x8_t first = vld1q_s16(q);
          const int16x8_t second = vld1q_s16(q + 8);
          int32x4_t sum = vmlal_s16(sums[r][t], vget_low_s16(low), vget_low_s16(first));
          sum = vmlal_high_s16(sum, low, first);
          sum = vmlal_s16(sum, vget_low_s16(high), vget_low_s16(second));
          sums[r][t] = vmlal_high_s16(sum, high, second);
        }
      }
    }
    void drain(const float (&scale)[kR], float32x4_t (&floats)[kFloats]) const {
      for (std::size_t r = 0; r < kR; ++r) {
        for (std::size_t t = 0; t < kT; ++t) {
          floats[r * kT + t] = vfmaq_n_f32(floats[r * kT + t], vcvtq_f32_s32(sums[r][t]), scale[r]);
        }
      }
    }
    static float32x4_t total(const float32x4_t (&floats)[kFloats], std::size_t r, std::size_t t) {
      return floats[r * kT + t];
    }
  };
};

}  // namespace

constinit const Kernels kNeonKernels = neon_kernels<Smlal>();

}  // namespace edge::kernels
