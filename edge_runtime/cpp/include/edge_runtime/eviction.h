// Which block goes first when the budget is full.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "edge_runtime/node.h"

namespace edge {

// A block that is in memory and that neither leases nor pins hold. Times are counted in fetches granted by the pager.
struct IdleBlock {
  Node node;
  std::uint64_t bytes = 0;
  std::uint64_t uses = 0;      // leases that have had it since it was read
  std::uint64_t last_use = 0;  // when the last of them ended
  // A hint asks for it: it is to be valued as if used once more at this time.
  std::optional<std::uint64_t> hint = std::nullopt;
};

// Ranks the idle blocks of one pager. Not thread-safe: the pager calls it. benchmarks/eviction_traces.cc compares
// policies, docs/eviction.md holds the figures.
class EvictionPolicy {
 public:
  EvictionPolicy() = default;
  EvictionPolicy(const EvictionPolicy&) = delete;
  EvictionPolicy& operator=(const EvictionPolicy&) = delete;
  virtual ~EvictionPolicy() = default;

  // A lease on the node's block ends. REQUIRES that the block is not idle.
  virtual void used(Node node, std::uint64_t now) = 0;
  // A block becomes idle; it is used again or evicted. REQUIRES that erase names what insert was given.
  virtual void insert(const IdleBlock& block) = 0;
  virtual void erase(const IdleBlock& block) = 0;
  // The block to evict first; nullopt where none is idle.
  virtual std::optional<Node> coldest(std::uint64_t now) const = 0;
  // Whether `a` is to be evicted before `b`, which need not be idle.
  virtual bool colder(const IdleBlock& a, const IdleBlock& b, std::uint64_t now) const = 0;
};

struct NodeHash {
  std::size_t operator()(Node node) const { return std::hash<std::uint64_t>{}(node.index << 5U ^ node.level); }
};

// Frequency that fades: each use of a node counts half as much after `half_life` more fetches, and 2^-level_weight as
// much a level further down. What is known of a node outlives the eviction of its block, until it has faded away.
class DecayedFrequency final : public EvictionPolicy {
 public:
  static constexpr double kHalfLife = 32;
  static constexpr double kLevelWeight = 1;

  explicit DecayedFrequency(double half_life = kHalfLife, double level_weight = kLevelWeight)
      : half_life_(half_life), level_weight_(level_weight) {}

  void used(Node node, std::uint64_t now) override;
  void insert(const IdleBlock& block) override;
  void erase(const IdleBlock& block) override;
  std::optional<Node> coldest(std::uint64_t now) const override;
  bool colder(const IdleBlock& a, const IdleBlock& b, std::uint64_t now) const override;

  std::size_t known() const { return nodes_.size(); }  // nodes with a history

 private:
  struct History {
    double uses = 0;  // faded, as of `time`
    std::uint64_t time = 0;
    std::optional<double> rank = std::nullopt;  // its place in ranks_
  };

  double value(const IdleBlock& block) const;
  void forget(std::uint64_t now);

  double half_life_;
  double level_weight_;
  std::unordered_map<Node, History, NodeHash> nodes_;
  std::set<std::pair<double, Node>> ranks_;  // idle blocks, the coldest first
  std::uint64_t next_forget_ = 0;
};

std::unique_ptr<EvictionPolicy> make_decayed_frequency();

}  // namespace edge
