// Which block goes first when the budget is full.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "edge_runtime/node.h"

namespace edge {

// A block that no lease uses, as a policy sees it.
struct IdleBlock {
  Node node;
  std::uint64_t bytes = 0;
  std::uint64_t uses = 0;      // leases that have had it since it was read; 0: a hint has brought it
  std::uint64_t last_use = 0;  // when a lease last used it, in fetches granted by the pager
};

// Ranks the idle blocks of one pager. Not thread-safe: the pager calls it. benchmarks/eviction_traces.cc compares
// policies, docs/eviction.md holds the figures.
class EvictionPolicy {
 public:
  EvictionPolicy() = default;
  EvictionPolicy(const EvictionPolicy&) = delete;
  EvictionPolicy& operator=(const EvictionPolicy&) = delete;
  virtual ~EvictionPolicy() = default;

  // A block becomes idle; it is used again or evicted. REQUIRES that erase names what insert was given.
  virtual void insert(const IdleBlock& block) = 0;
  virtual void erase(const IdleBlock& block) = 0;
  // The block to evict first after `now` fetches; nullopt where none is idle.
  virtual std::optional<IdleBlock> coldest(std::uint64_t now) const = 0;
  // Whether `a` is to be evicted before `b`.
  virtual bool colder(const IdleBlock& a, const IdleBlock& b, std::uint64_t now) const = 0;
};

// Recency weighed by level: a block one level down is evicted as soon as one four times as idle above it. Among k^l
// nodes a prompt meets a shallow one again far sooner, and a change of topic within a branch keeps the shallow ones.
class LevelWeightedRecency final : public EvictionPolicy {
 public:
  void insert(const IdleBlock& block) override;
  void erase(const IdleBlock& block) override;
  std::optional<IdleBlock> coldest(std::uint64_t now) const override;
  bool colder(const IdleBlock& a, const IdleBlock& b, std::uint64_t now) const override;

 private:
  struct ByRecency {
    bool operator()(const IdleBlock& a, const IdleBlock& b) const {
      return std::pair(a.last_use, a.node) < std::pair(b.last_use, b.node);
    }
  };
  // Within a level the least recent block goes first, so that only one block a level has to be weighed.
  std::map<std::uint32_t, std::set<IdleBlock, ByRecency>> levels_;
};

std::unique_ptr<EvictionPolicy> make_level_weighted_recency();

}  // namespace edge
