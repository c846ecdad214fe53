// Thousands of random operations, the pager's invariants asserted after each.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "edge_runtime/pager.h"
#include "simulated_bank.h"

namespace edge {
namespace {

using testing::kLayers;
using testing::SimulatedBank;

struct Run {
  std::uint64_t budget_pages;
  bool faults;
  std::set<Node> pinned = {};
};

class Model {
 public:
  Model(std::uint32_t seed, const Run& run)
      : random_(seed), budget_(run.budget_pages * kPage), faults_(run.faults), pinned_(run.pinned) {
    bank_.add({.level = 2, .rows_per_block = 8, .nodes = {3, 7, 11}, .seed = 50});  // an overlay
    for (std::uint32_t level = 0; level < 3; ++level) stride_.push_back(bank_.stride(level));
    for (const Node node : pinned_) pinned_bytes_ += stride_[node.level];
    bank_.open(PagerOptions{.budget = budget_, .blocked = {{1, 3}}, .pinned = {pinned_.begin(), pinned_.end()}});
  }

  void step() {
    switch (pick(11)) {
      case 0:
      case 1:
        return fetch(std::nullopt);
      case 2:
        return leases_.empty() ? fetch(std::nullopt) : fetch(some_lease());
      case 3:
      case 4:
        return release();
      case 5:
        bank_.pager().shrink(pick(20) * kPage);
        return;
      case 6:
        if (faults_) add_fault();
        return;
      case 7:
        return prefetch();
      default:
        bank_.step();
    }
  }

  void check() {
    const PagerStats stats = bank_.pager().stats();
    ASSERT_LE(stats.resident_bytes + stats.in_flight_bytes, budget_);
    ASSERT_LE(stats.peak_bytes, budget_);
    ASSERT_LE(stats.leased_bytes, budget_);
    ASSERT_EQ(stats.leases, leases_.size());
    for (auto& [id, lease] : leases_) {
      const auto blocks = bank_.pager().blocks(id);
      ASSERT_TRUE(blocks);
      ASSERT_EQ(blocks->size(), lease.nodes.size());
      for (std::uint64_t layer = 0; layer < kLayers; ++layer) {
        const auto ready = bank_.pager().ready(id, layer);
        if (!ready) {
          ASSERT_TRUE(faults_) << ready.error().message;
          lease.failed = true;
        }
        // What was ready stays so until the lease ends, and shows the file's bytes at the same address.
        if (lease.shown[layer] && !lease.failed) {
          ASSERT_TRUE(*ready);
        }
        if (lease.shown[layer]) {
          ASSERT_NO_FATAL_FAILURE(compare(*blocks, lease, layer));
        } else if (ready && *ready) {
          lease.shown[layer] = true;
          lease.addresses.clear();
          for (const LeasedBlock& block : *blocks) lease.addresses.push_back(block.data);
          ASSERT_NO_FATAL_FAILURE(compare(*blocks, lease, layer));
        }
      }
    }
  }

  void finish() {
    while (!leases_.empty()) release();
    bank_.run();
    ASSERT_EQ(bank_.pager().stats().in_flight_bytes, 0U);
    ASSERT_EQ(bank_.pager().stats().leased_bytes, 0U);
    bank_.pager().shrink(budget_);
    const std::uint64_t resident = bank_.pager().stats().resident_bytes;
    ASSERT_LE(resident, pinned_bytes_);
    if (!faults_) {
      ASSERT_EQ(resident, pinned_bytes_);
    }
  }

  std::uint64_t granted() { return bank_.pager().stats().fetches; }
  std::uint64_t busy() const { return busy_; }
  std::uint64_t evictions() { return bank_.pager().stats().evictions; }
  std::uint64_t failures() { return bank_.pager().stats().failures; }
  std::uint64_t prefetch_hits() { return bank_.pager().stats().prefetch_hits; }

 private:
  struct Lease {
    std::vector<Node> nodes;
    std::vector<bool> shown = std::vector<bool>(kLayers, false);
    std::vector<const std::byte*> addresses;
    bool failed = false;
  };

  std::uint64_t pick(std::uint64_t count) {
    return std::uniform_int_distribution<std::uint64_t>(0, count - 1)(random_);
  }

  LeaseId some_lease() { return std::next(leases_.begin(), static_cast<std::ptrdiff_t>(pick(leases_.size())))->first; }

  // What a block takes from what pins leave of the budget.
  std::uint64_t bytes_of(Node node) const { return pinned_.contains(node) ? 0 : stride_[node.level]; }

  // Bytes that pins and other leases than `replacing` hold, without those that `nodes` share.
  std::uint64_t held_by_others(std::optional<LeaseId> replacing, const std::vector<Node>& nodes) const {
    std::set<Node> held;
    for (const auto& [id, lease] : leases_) {
      if (id != replacing) held.insert(lease.nodes.begin(), lease.nodes.end());
    }
    std::uint64_t bytes = pinned_bytes_;
    for (const Node node : held) {
      if (std::find(nodes.begin(), nodes.end(), node) == nodes.end()) bytes += bytes_of(node);
    }
    return bytes;
  }

  std::vector<Node> some_nodes() {
    std::set<Node> chosen;
    for (std::uint64_t count = pick(4); count > 0; --count) {
      const auto level = static_cast<std::uint32_t>(pick(3));
      const std::uint64_t nodes[] = {1, 4, 16};
      chosen.insert({level, pick(nodes[level])});
    }
    std::vector<Node> nodes(chosen.begin(), chosen.end());
    std::shuffle(nodes.begin(), nodes.end(), random_);
    return nodes;
  }

  static bool is_blocked(const std::vector<Node>& nodes) {
    return std::any_of(nodes.begin(), nodes.end(), [](Node node) {
      return (node.level == 1 && node.index == 3) || (node.level == 2 && node.index / 4 == 3);
    });
  }

  void prefetch() {
    const std::vector<Node> nodes = some_nodes();
    const auto bytes = bank_.pager().prefetch(nodes);
    ASSERT_EQ(bytes.has_value(), !is_blocked(nodes));
  }

  void fetch(std::optional<LeaseId> replacing) {
    const std::vector<Node> nodes = some_nodes();
    const bool blocked = is_blocked(nodes);
    std::uint64_t total = 0;
    for (const Node node : nodes) total += bytes_of(node);
    const auto lease = bank_.pager().fetch(nodes, replacing);
    if (blocked) {
      ASSERT_EQ(lease.error().code, ErrorCode::kBlocked);
    } else if (pinned_bytes_ + total > budget_) {
      ASSERT_EQ(lease.error().code, ErrorCode::kNeverFits);
      ASSERT_EQ(lease.error().required_bytes, pinned_bytes_ + total);
    } else if (!lease) {
      // Busy exactly where the other leases' blocks and ours exceed the budget. (A failed block that is fetched anew
      // while an old lease holds it counts twice.)
      ASSERT_EQ(lease.error().code, ErrorCode::kBusy);
      if (!faults_) {
        ASSERT_GT(held_by_others(replacing, nodes) + total, budget_);
      }
      ++busy_;
    } else {
      ASSERT_LE(held_by_others(replacing, nodes) + total, budget_);
      if (replacing) leases_.erase(*replacing);
      leases_[*lease].nodes = nodes;
    }
  }

  void release() {
    if (leases_.empty()) return;
    const LeaseId id = some_lease();
    bank_.pager().release(id);
    leases_.erase(id);
  }

  void add_fault() {
    const std::size_t file = pick(4);
    const auto kind = static_cast<FaultKind>(pick(3));
    bank_.storage(file).add({pick(bank_.storage(file).file_bytes()), kind, static_cast<unsigned>(1 + pick(2))});
  }

  void compare(const std::vector<LeasedBlock>& blocks, const Lease& lease, std::uint64_t layer) {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const BankLevelSpec& spec = *blocks[i].spec;
      ASSERT_EQ(blocks[i].node, lease.nodes[i]);
      ASSERT_EQ(blocks[i].data, lease.addresses[i]);
      const auto [entry, absent] = expected_.try_emplace(lease.nodes[i]);
      if (absent) entry->second = bank_.expected(lease.nodes[i]);
      const std::byte* const want = entry->second.data();
      const auto same = [&](std::uint64_t offset, std::uint64_t length) {
        return std::memcmp(blocks[i].data + offset, want + offset, length) == 0;
      };
      ASSERT_TRUE(same(spec.layer_offset(layer), spec.layer_bytes()));
      ASSERT_TRUE(same(spec.scale_offset(layer), spec.layer_scale_bytes()));
    }
  }

  std::mt19937 random_;
  std::uint64_t budget_;
  bool faults_;
  std::set<Node> pinned_;
  std::uint64_t pinned_bytes_ = 0;
  SimulatedBank bank_;
  std::vector<std::uint64_t> stride_;
  std::map<LeaseId, Lease> leases_;
  std::map<Node, std::span<const std::byte>> expected_;
  std::uint64_t busy_ = 0;
};

class PagerModel : public ::testing::TestWithParam<Run> {};
INSTANTIATE_TEST_SUITE_P(Budgets, PagerModel,
                         ::testing::Values(Run{4, false}, Run{9, false}, Run{16, false}, Run{64, false}, Run{9, true},
                                           Run{16, true}, Run{12, false, {{1, 0}, {2, 2}}},
                                           Run{14, true, {{0, 0}, {2, 7}}}),
                         [](const auto& instance) {
                           return std::to_string(instance.param.budget_pages) + "pages" +
                                  (instance.param.faults ? "Faulty" : "") +
                                  (instance.param.pinned.empty() ? "" : "Pinned");
                         });

TEST_P(PagerModel, KeepsItsInvariants) {
  std::uint64_t granted = 0;
  std::uint64_t pressed = 0;
  std::uint64_t failures = 0;
  std::uint64_t prefetch_hits = 0;
  for (std::uint32_t seed = 0; seed < 5; ++seed) {
    Model model(seed, GetParam());
    for (int operation = 0; operation < 2000; ++operation) {
      ASSERT_NO_FATAL_FAILURE(model.step()) << "seed " << seed << " operation " << operation;
      ASSERT_NO_FATAL_FAILURE(model.check()) << "seed " << seed << " operation " << operation;
    }
    granted += model.granted();
    pressed += model.busy() + model.evictions();
    failures += model.failures();
    prefetch_hits += model.prefetch_hits();
    ASSERT_NO_FATAL_FAILURE(model.finish());
  }
  // The run means something: leases were granted, and the budget was felt.
  EXPECT_GT(granted, 200U);
  EXPECT_GT(pressed, 20U);
  EXPECT_EQ(failures > 0, GetParam().faults);
  EXPECT_GT(prefetch_hits, 0U);
}

}  // namespace
}  // namespace edge
