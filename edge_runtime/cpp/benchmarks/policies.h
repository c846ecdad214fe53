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
  void insert(const IdleBlock& block) override { blocks_.emplace(block.node, block); }
  void erase(const IdleBlock& block) override { blocks_.erase(block.node); }
  std::optional<IdleBlock> coldest(std::uint64_t now) const override {
    std::optional<IdleBlock> found;
    for (const auto& [node, block] : blocks_) {
      if (!found || colder(block, *found, now)) found = block;
    }
    return found;
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
  std::optional<IdleBlock> coldest(std::uint64_t now) const override {
    const auto found = ByValue::coldest(now);
    if (found) offered_ = found->node;
    return found;
  }

 private:
  double value(const IdleBlock& block, std::uint64_t /*now*/) const override { return values_.at(block.node); }

  std::map<Node, double> values_;
  mutable std::optional<Node> offered_;  // the pager evicts what it was offered
  double floor_ = 0;
};

// Recency weighed by level, base^level.
class WeightedRecency final : public ByValue {
 public:
  explicit WeightedRecency(double base) : base_(base) {}

 private:
  double value(const IdleBlock& block, std::uint64_t now) const override {
    return -static_cast<double>(now - block.last_use + 1) * std::pow(base_, block.node.level);
  }
  double base_;
};

// Uses that count half after `half_life` fetches, remembered beyond eviction.
class DecayedFrequency final : public ByValue {
 public:
  explicit DecayedFrequency(double half_life) : half_life_(half_life) {}
  void insert(const IdleBlock& block) override {
    auto& [score, time] = history_[block.node];
    score = 1 + score * std::exp2(-static_cast<double>(block.last_use - time) / half_life_);
    time = block.last_use;
    ByValue::insert(block);
  }

 private:
  double value(const IdleBlock& block, std::uint64_t /*now*/) const override {
    const auto& [score, time] = history_.at(block.node);
    return std::log2(score) + static_cast<double>(time) / half_life_;
  }
  std::map<Node, std::pair<double, std::uint64_t>> history_;
  double half_life_;
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
  const auto weighted = [](double base) {
    return [base](const std::vector<Visit>&) { return std::make_unique<WeightedRecency>(base); };
  };
  const auto decayed = [](double half_life) {
    return [half_life](const std::vector<Visit>&) { return std::make_unique<DecayedFrequency>(half_life); };
  };
  return {{"LRU", plain(static_cast<Lru*>(nullptr))},
          {"LFU", plain(static_cast<Lfu*>(nullptr))},
          {"GDSF", plain(static_cast<Gdsf*>(nullptr))},
          {"recency x 2^level", weighted(2)},
          {"recency x 4^level", weighted(4)},
          {"recency x 16^level", weighted(16)},
          {"decayed 64", decayed(64)},
          {"decayed 256", decayed(256)},
          {"decayed 1024", decayed(1024)},
          {"clairvoyant", [](const std::vector<Visit>& trace) { return std::make_unique<Clairvoyant>(trace); }}};
}

}  // namespace edge::bench
