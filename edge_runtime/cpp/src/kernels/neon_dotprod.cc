// SDOT: the two bytes of an activation one after the other.
#include "kernels/neon.h"

namespace edge::kernels {
namespace {

struct Sdot {
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 2;

  static void store(int16x8_t first, int16x8_t second, std::byte* to) {
    const Split q = split(first, second);
    vst1q_s8(reinterpret_cast<std::int8_t*>(to), q.high);
    vst1q_s8(reinterpret_cast<std::int8_t*>(to) + kStep, q.low);
  }

  template <std::size_t kR, std::size_t kT>
  struct Sums {
    static constexpr std::size_t kFloats = kR * kT;
    int32x4_t high[kR][kT];
    int32x4_t low[kR][kT];

    void clear() {
      for (std::size_t r = 0; r < kR; ++r) {
        for (std::size_t t = 0; t < kT; ++t) high[r][t] = low[r][t] = vdupq_n_s32(0);
      }
    }
    void step(const int8x16_t (&w)[kR], const std::byte* x, std::size_t token_stride) {
      for (std::size_t t = 0; t < kT; ++t) {
        const int8x16_t x_high = Neon::load_bytes(x + t * token_stride);
        const int8x16_t x_low = Neon::load_bytes(x + t * token_stride + kStep);
        for (std::size_t r = 0; r < kR; ++r) {
          high[r][t] = vdotq_s32(high[r][t], w[r], x_high);
          low[r][t] = vdotq_s32(low[r][t], w[r], x_low);
        }
      }
    }
    void drain(const float (&scale)[kR], float32x4_t (&floats)[kFloats]) const {
      for (std::size_t r = 0; r < kR; ++r) {
        for (std::size_t t = 0; t < kT; ++t) {
          const int32x4_t both = vaddq_s32(vshlq_n_s32(high[r][t], 8), low[r][t]);
          floats[r * kT + t] = vfmaq_n_f32(floats[r * kT + t], vcvtq_f32_s32(both), scale[r]);
        }
      }
    }
    static float32x4_t total(const float32x4_t (&floats)[kFloats], std::size_t r, std::size_t t) {
      return floats[r * kT + t];
    }
  };
};

}  // namespace

constinit const Kernels kNeonDotprodKernels = neon_kernels<Sdot>();

}  // namespace edge::kernels
