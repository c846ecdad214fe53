// The baseline of arm64: products in 16 bits, added in pairs.
#include "kernels/packed_neon.h"

namespace edge::kernels {
namespace {

struct Smull {
  template <std::size_t kWord>
  static int32x4_t step(int32x4_t sums, int8x16_t weights, int8x16_t q) {
    const int8x16_t word = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(q), kWord));
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(weights), vget_low_s8(word)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(weights, word));
    return vaddq_s32(sums, vpaddq_s32(low, high));
  }
};

}  // namespace

constinit const PackedKernels kNeonPackedKernels = packed_neon_kernels<Smull>();

}  // namespace edge::kernels
