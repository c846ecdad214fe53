// The policies that are compared with the pager's own. Plain scans over the idle blocks: they are measured in bytes
// read, not in time.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "edge_runtime/eviction.h"
#include "traces.h"

namespace edge::bench {

// Evicts the block with the least value.
class ByValue : public EvictionPolicy {
 public:
  void used(Node /*node*/, std::uint64_t /*now*/) override {}
  void insert(const IdleBlock& block) override { blocks_.emplace(block.node, block); }
  void erase(const IdleBlock& block) override { blocks_.erase(block.node); }
  std::optional<Node> coldest(std::uint64_t now) const override {
    const IdleBlock* found = nullptr;
    for (const auto& [node, block] : blocks_) {
      if (found == nullptr || colder(block, *found, now)) found = &block;
    }
    if (found == nullptr) return std::nullopt;
    return found->node;
  }
  bool colder(const IdleBlock& a, const IdleBlock& b, std::uint64_t now) const override {
    const double first = value(a, now);
    const double second = value(b, now);
    return first < second || (first == second && a.last_use < b.last_use);
  }

 protected:
  virtual double value(const IdleBlock& block, std::uint64_t now) const = 0;

 private:
  std::map<Node, IdleBlock> blocks_;
};

class Lru final : public ByValue {
  double value(const IdleBlock& block, std::uint64_t /*now*/) const override {
    return static_cast<double>(block.last_use);
  }
};

class Lfu final : public ByValue {
  double value(const IdleBlock& block, std::uint64_t /*now*/) const override { return static_cast<double>(block.uses); }
};

// Greedy dual, size and frequency: the value is uses * cost / size above what was last evicted. The cost is a read's
// time on the simulated device, relative to its bytes.
class Gdsf final : public ByValue {
 public:
  void insert(const IdleBlock& block) override {
    constexpr double kLatencyBytes = 3'800;  // what the device transfers in the time of one latency
    const auto bytes = static_cast<double>(block.bytes);
    values_[block.node] = floor_ + static_cast<double>(block.uses) * (kLatencyBytes + bytes) / bytes;
    ByValue::insert(block);
  }
  void erase(const IdleBlock& block) override {
    if (offered_ == block.node) floor_ = values_.at(block.node);
    offered_.reset();
    ByValue::erase(block);
  }
  std::optional<Node> coldest(std::uint64_t now) const override { return offered_ = ByValue::coldest(now); }

 private:
  double value(const IdleBlock& block, std::uint64_t /*now*/) const override { return values_.at(block.node); }

  std::map<Node, double> values_;
  mutable std::optional<Node> offered_;  // the pager evicts what it was offered
  double floor_ = 0;
};

// Recency weighed by level: a block a level further down goes as soon as one four times as idle above it.
class WeightedRecency final : public ByValue {
  double value(const IdleBlock& block, std::uint64_t now) const override {
    return -std::ldexp(static_cast<double>(now - block.last_use + 1), 2 * static_cast<int>(block.node.level));
  }
};

// Knows the future: the block whose next use is farthest goes first. No policy that can be built reads much less.
class Clairvoyant final : public ByValue {
 public:
  explicit Clairvoyant(const std::vector<Visit>& trace) {
    for (std::size_t i = 0; i < trace.size(); ++i) {
      for (const Node node : path_to(trace[i].leaf)) uses_[node].push_back(i + 1);
    }
  }

 private:
  double value(const IdleBlock& block, std::uint64_t now) const override {
    const auto& uses = uses_.at(block.node);
    const auto next = std::upper_bound(uses.begin(), uses.end(), now);
    return next == uses.end() ? -std::numeric_limits<double>::infinity() : -static_cast<double>(*next);
  }
  std::map<Node, std::vector<std::uint64_t>> uses_;
};

using PolicyMaker = std::function<std::unique_ptr<EvictionPolicy>(const std::vector<Visit>&)>;

inline std::vector<std::pair<std::string, PolicyMaker>> all_policies() {
  const auto plain = []<typename Policy>(Policy* /*type*/) {
    return [](const std::vector<Visit>&) { return std::make_unique<Policy>(); };
  };
  const auto decayed = [](double half_life, double level_weight) {
    return [=](const std::vector<Visit>&) { return std::make_unique<DecayedFrequency>(half_life, level_weight); };
  };
  return {{"LRU", plain(static_cast<Lru*>(nullptr))},
          {"LFU", plain(static_cast<Lfu*>(nullptr))},
          {"GDSF", plain(static_cast<Gdsf*>(nullptr))},
          {"recency x 4^level", [](const std::vector<Visit>&) { return std::make_unique<WeightedRecency>(); }},
          {"fading 32", decayed(32, 0)},
          {"fading 32, half a level", decayed(DecayedFrequency::kHalfLife, DecayedFrequency::kLevelWeight)},
          {"fading 128, half a level", decayed(128, 1)},
          {"clairvoyant", [](const std::vector<Visit>& trace) { return std::make_unique<Clairvoyant>(trace); }}};
}

}  // namespace edge::bench
