#include "edge_runtime/eviction.h"

#include <cmath>

namespace edge {

namespace {

// After this many half-lives a use counts for nothing: 1 / 65,536.
constexpr double kMemory = 16;

double elapsed(std::uint64_t from, std::uint64_t to) { return static_cast<double>(to) - static_cast<double>(from); }

}  // namespace

void DecayedFrequency::used(Node node, std::uint64_t now) {
  History& history = nodes_[node];
  history.uses = 1 + history.uses * std::exp2(-elapsed(history.time, now) / half_life_);
  history.time = now;
  forget(now);
}

// Now and then: what is too old goes, so that the table holds what a few hundred fetches touch, not the whole bank.
void DecayedFrequency::forget(std::uint64_t now) {
  if (now < next_forget_) return;
  const double horizon = kMemory * half_life_;
  next_forget_ = now + static_cast<std::uint64_t>(horizon);
  std::erase_if(nodes_,
                [&](const auto& entry) { return !entry.second.rank && elapsed(entry.second.time, now) > horizon; });
}

// The logarithm of the uses, faded from an arbitrary time on that is the same for all: so values need not be updated as
// time passes.
double DecayedFrequency::value(const IdleBlock& block) const {
  const auto found = nodes_.find(block.node);
  History history = found == nodes_.end() ? History{} : found->second;
  if (block.hint) {
    history.uses = 1 + history.uses * std::exp2(-elapsed(history.time, *block.hint) / half_life_);
    history.time = *block.hint;
  }
  return std::log2(history.uses) + static_cast<double>(history.time) / half_life_ - level_weight_ * block.node.level;
}

void DecayedFrequency::insert(const IdleBlock& block) {
  const double rank = value(block);
  nodes_[block.node].rank = rank;
  ranks_.emplace(rank, block.node);
}

void DecayedFrequency::erase(const IdleBlock& block) {
  std::optional<double>& rank = nodes_[block.node].rank;
  if (!rank) return;
  ranks_.erase({*rank, block.node});
  rank.reset();
}

std::optional<Node> DecayedFrequency::coldest(std::uint64_t /*now*/) const {
  if (ranks_.empty()) return std::nullopt;
  return ranks_.begin()->second;
}

bool DecayedFrequency::colder(const IdleBlock& a, const IdleBlock& b, std::uint64_t /*now*/) const {
  return value(a) < value(b);
}

std::unique_ptr<EvictionPolicy> make_decayed_frequency() { return std::make_unique<DecayedFrequency>(); }

}  // namespace edge
