// Which block goes first when the budget is full.
#pragma once

#include <cstdint>

namespace edge {

// What a policy may know of a block that no lease uses.
struct EvictionCandidate {
  std::uint32_t level = 0;
  std::uint64_t bytes = 0;
  std::uint64_t uses = 0;  // leases that have had it
  std::uint64_t idle = 0;  // fetches since a lease last used it, at least 1
};

// The higher the score, the sooner the block is evicted.
using EvictionScore = double (*)(const EvictionCandidate&);

// Recency weighed by level: a block one level down is evicted as soon as one four times as idle above it. Among k^l
// nodes a prompt meets a shallow one again far sooner, and a change of topic within a branch keeps the shallow ones.
double level_weighted_recency(const EvictionCandidate& candidate);

}  // namespace edge
