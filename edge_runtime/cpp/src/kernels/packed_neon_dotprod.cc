// SDOT: four rows' words with one of four words of a token.
#include "kernels/packed_neon.h"

namespace edge::kernels {
namespace {

struct Sdot {
  template <std::size_t kWord>
  static int32x4_t step(int32x4_t sums, int8x16_t weights, int8x16_t q) {
    return vdotq_laneq_s32(sums, weights, q, kWord);
  }
};

}  // namespace

constinit const PackedKernels kNeonDotprodPackedKernels = packed_neon_kernels<Sdot>();

}  // namespace edge::kernels
