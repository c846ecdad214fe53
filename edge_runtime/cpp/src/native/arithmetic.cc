#include "native/arithmetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace edge::native {
namespace {

// Independent sums, which the compiler keeps in vectors.
constexpr std::size_t kLanes = 16;

template <typename Term>
float sum_of(std::size_t n, const Term& term) {
  std::array<float, kLanes> lanes{};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (; i < n; ++i) lanes[i % kLanes] += term(i);
  for (std::size_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::size_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

float scaled(float frequency, const NativeRope& rope) {
  if (rope.scaling == NativeRope::Scaling::kLinear) return frequency / rope.factor;
  if (rope.scaling == NativeRope::Scaling::kLlama3) {
    const float turns = rope.original_context * frequency / (2 * std::numbers::pi_v<float>);
    const float kept = std::clamp((turns - rope.low) / (rope.high - rope.low), 0.0F, 1.0F);
    return frequency * (kept + (1 - kept) / rope.factor);
  }
  return frequency;
}

}  // namespace

void normalise(const float* x, const float* gains, std::size_t n, float eps, bool centred, float* y) {
  const auto count = static_cast<float>(n);
  const float mean = centred ? sum_of(n, [&](std::size_t i) { return x[i]; }) / count : 0.0F;
  const float squares = sum_of(n, [&](std::size_t i) { return (x[i] - mean) * (x[i] - mean); });
  const float factor = 1.0F / std::sqrt(squares / count + eps);
  for (std::size_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * factor * gains[i];
}

Rotation::Rotation(std::size_t head_dim, const NativeRope& rope) : cosines_(head_dim / 2), sines_(head_dim / 2) {
  for (std::size_t i = 0; i < head_dim / 2; ++i) {
    const float frequency = std::pow(rope.theta, -static_cast<float>(2 * i) / static_cast<float>(head_dim));
    frequencies_.push_back(scaled(frequency, rope));
  }
}

void Rotation::turn_to(std::size_t position) {
  for (std::size_t i = 0; i < frequencies_.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies_[i];  // in f32, as models were trained
    cosines_[i] = std::cos(angle);
    sines_[i] = std::sin(angle);
  }
}

void Rotation::apply(float* head) const {
  const std::size_t half = cosines_.size();
  for (std::size_t i = 0; i < half; ++i) {
    const float first = head[i];
    const float second = head[half + i];
    head[i] = first * cosines_[i] - second * sines_[i];
    head[half + i] = second * cosines_[i] + first * sines_[i];
  }
}

void add_to(float* to, const float* from, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) to[i] += from[i];
}

}  // namespace edge::native
