#include "native/heads.h"

namespace edge::native {

void Heads::make_room(std::size_t tokens) {
  rotations_.clear();
  for (std::size_t t = 0; t < tokens; ++t) {
    for (const NativeRope& rope : config_.ropes) rotations_.emplace_back(config_.head_dim, rope);
  }
}

void Heads::turn_to(std::size_t token, std::size_t position) {
  const std::size_t ropes = config_.ropes.size();
  for (std::size_t i = token * ropes; i < (token + 1) * ropes; ++i) rotations_[i].turn_to(position);
}

void Heads::prepare(const Layer& layer, const NativeLayerOptions& options, std::size_t token, float* query,
                    float* key) const {
  const std::size_t dim = config_.head_dim;
  const auto each = [&](const auto& what) {
    for (std::size_t head = 0; head < config_.heads; ++head) what(query + head * dim, layer.q_norm);
    for (std::size_t head = 0; head < config_.kv_heads; ++head) what(key + head * dim, layer.k_norm);
  };
  const auto norm = [&](float* values, const float* gains, std::size_t width) {
    normalise(values, gains, width, config_.norm_eps, config_.centred_norm, values);
  };
  if (config_.qk_norm == QkNorm::kWidth) {
    norm(query, layer.q_norm, config_.query_width());
    norm(key, layer.k_norm, config_.kv_width());
  } else if (config_.qk_norm == QkNorm::kHead) {
    each([&](float* head, const float* gains) { norm(head, gains, dim); });
  }
  if (options.rope == NativeLayerOptions::kNoRope) return;
  const Rotation& rotation = rotations_[token * config_.ropes.size() + options.rope];
  each([&](float* head, const float*) { rotation.apply(head); });
}

}  // namespace edge::native
