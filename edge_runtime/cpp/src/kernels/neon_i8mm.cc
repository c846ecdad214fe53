// SMMLA multiplies two rows of eight bytes with two more: here two rows of weights with the two bytes of eight
// activations, so that even a single token fills it.
#include "kernels/neon.h"

namespace edge::kernels {
namespace {

struct Smmla {
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 4;

  // [high 0..7] [low 0..7] [high 8..15] [low 8..15]
  static void store(int16x8_t first, int16x8_t second, std::byte* to) {
    const Split q = split(first, second);
    vst1q_s8(reinterpret_cast<std::int8_t*>(to), vcombine_s8(vget_low_s8(q.high), vget_low_s8(q.low)));
    vst1q_s8(reinterpret_cast<std::int8_t*>(to) + kStep, vcombine_s8(vget_high_s8(q.high), vget_high_s8(q.low)));
  }

  template <std::size_t kR, std::size_t kT>
  struct Sums {
    static constexpr std::size_t kPairs = (kR + 1) / 2;
    static constexpr std::size_t kFloats = kPairs * kT;
    // High and low of a pair's first row, then of its second; of even and odd columns' eights, which do not wait for
    // each other.
    int32x4_t even[kPairs][kT];
    int32x4_t odd[kPairs][kT];

    void clear() {
      for (std::size_t p = 0; p < kPairs; ++p) {
        for (std::size_t t = 0; t < kT; ++t) even[p][t] = odd[p][t] = vdupq_n_s32(0);
      }
    }
    void step(const int8x16_t (&w)[kR], const std::byte* x, std::size_t token_stride) {
      int8x16_t first[kPairs];
      int8x16_t second[kPairs];
      for (std::size_t p = 0; p < kPairs; ++p) {
        const int64x2_t upper = vreinterpretq_s64_s8(w[2 * p]);
        const int64x2_t lower = vreinterpretq_s64_s8(w[2 * p + 1 < kR ? 2 * p + 1 : 2 * p]);
        first[p] = vreinterpretq_s8_s64(vzip1q_s64(upper, lower));
        second[p] = vreinterpretq_s8_s64(vzip2q_s64(upper, lower));
      }
      for (std::size_t t = 0; t < kT; ++t) {
        const int8x16_t x_first = Neon::load_bytes(x + t * token_stride);
        const int8x16_t x_second = Neon::load_bytes(x + t * token_stride + kStep);
        for (std::size_t p = 0; p < kPairs; ++p) {
          even[p][t] = vmmlaq_s32(even[p][t], first[p], x_first);
          odd[p][t] = vmmlaq_s32(odd[p][t], second[p], x_second);
        }
      }
    }
    void drain(const float (&scale)[kR], float32x4_t (&floats)[kFloats]) const {
      for (std::size_t p = 0; p < kPairs; ++p) {
        const float one = scale[2 * p];
        const float other = scale[2 * p + 1 < kR ? 2 * p + 1 : 2 * p];
        const float32x4_t by = {256 * one, one, 256 * other, other};
        for (std::size_t t = 0; t < kT; ++t) {
          floats[p * kT + t] = vfmaq_f32(floats[p * kT + t], vcvtq_f32_s32(vaddq_s32(even[p][t], odd[p][t])), by);
        }
      }
    }
    static float32x4_t total(const float32x4_t (&floats)[kFloats], std::size_t r, std::size_t t) {
      const float32x4_t pair = floats[r / 2 * kT + t];
      return vcombine_f32(r % 2 == 0 ? vget_low_f32(pair) : vget_high_f32(pair), vdup_n_f32(0));
    }
  };
};

}  // namespace

constinit const Kernels kNeonI8mmKernels = neon_kernels<Smmla>();

}  // namespace edge::kernels
