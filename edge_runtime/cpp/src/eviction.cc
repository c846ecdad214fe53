#include "edge_runtime/eviction.h"

#include <cmath>

namespace edge {

double level_weighted_recency(const EvictionCandidate& candidate) {
  // 4 is the square root of the usual fanout of 16: between pure recency (1) and pure level order (16).
  return std::ldexp(static_cast<double>(candidate.idle), 2 * static_cast<int>(candidate.level));
}

}  // namespace edge
