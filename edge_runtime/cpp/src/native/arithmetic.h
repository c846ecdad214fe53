// The small steps between a decoder's matrices. Sums are made in a fixed order.
#pragma once

#include <cstddef>
#include <vector>

#include "edge_runtime/native_config.h"

namespace edge::native {

// y = x normalised over its n values, times the gains: LayerNorm without a bias where `centred`, else RMSNorm.
// y may be x.
void normalise(const float* x, const float* gains, std::size_t n, float eps, bool centred, float* y);

// Rotary positions of one token: value i of a head pairs with value i + head_dim / 2.
class Rotation {
 public:
  Rotation() = default;
  Rotation(std::size_t head_dim, const NativeRope& rope);
  void turn_to(std::size_t position);
  void apply(float* head) const;

 private:
  std::vector<float> frequencies_;
  std::vector<float> cosines_;
  std::vector<float> sines_;
};

// to += from
void add_to(float* to, const float* from, std::size_t n);

}  // namespace edge::native
