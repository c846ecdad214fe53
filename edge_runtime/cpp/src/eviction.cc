#include "edge_runtime/eviction.h"

namespace edge {

namespace {

// 4^level. 4 is the square root of the usual fanout of 16: between pure recency (1) and pure level order (16).
std::uint64_t weight(std::uint32_t level) { return std::uint64_t{1} << (2 * level); }

}  // namespace

void LevelWeightedRecency::insert(const IdleBlock& block) { levels_[block.node.level].insert(block); }

void LevelWeightedRecency::erase(const IdleBlock& block) { levels_[block.node.level].erase(block); }

bool LevelWeightedRecency::colder(const IdleBlock& a, const IdleBlock& b, std::uint64_t now) const {
  return (now - a.last_use + 1) * weight(a.node.level) > (now - b.last_use + 1) * weight(b.node.level);
}

std::optional<IdleBlock> LevelWeightedRecency::coldest(std::uint64_t now) const {
  std::optional<IdleBlock> found;
  for (const auto& [level, blocks] : levels_) {
    if (blocks.empty()) continue;
    const IdleBlock& oldest = *blocks.begin();
    if (!found || colder(oldest, *found, now)) found = oldest;
  }
  return found;
}

std::unique_ptr<EvictionPolicy> make_level_weighted_recency() { return std::make_unique<LevelWeightedRecency>(); }

}  // namespace edge
