// What happens to queries and keys between their product and the attention: QK-norm, and rotary positions, of which
// layers may have different ones or none.
#pragma once

#include <cstddef>
#include <vector>

#include "edge_runtime/native_config.h"
#include "native/arithmetic.h"
#include "native/weights.h"

namespace edge::native {

class Heads {
 public:
  explicit Heads(const NativeConfig& config) : config_(config) {}

  // Room for chunks of so many tokens. What was there is lost.
  void make_room(std::size_t tokens);
  // Threads may call these for distinct tokens at once.
  void turn_to(std::size_t token, std::size_t position);
  void prepare(const Layer& layer, const NativeLayerOptions& options, std::size_t token, float* query,
               float* key) const;

 private:
  const NativeConfig& config_;
  std::vector<Rotation> rotations_;  // [tokens, ropes]
};

}  // namespace edge::native
