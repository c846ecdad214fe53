#include "edge_runtime/pager.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "edge_runtime/tiers.h"
#include "simulated_bank.h"

namespace edge {
namespace {

using testing::kLayers;
using testing::SimulatedBank;

constexpr std::uint64_t kPlenty = 1U << 22U;

class PagerOfDType : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(All, PagerOfDType,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kI4),
                         [](const auto& instance) { return std::string(name(instance.param)); });

TEST_P(PagerOfDType, BringsTheBytesOfTheFile) {
  SimulatedBank bank(GetParam());
  bank.open(kPlenty);
  const std::vector<Node> path = {{0, 0}, {1, 2}, {2, 9}};
  bank.expect_contents(bank.fetched(path), path);
}

TEST(Pager, SharesResidentBlocksAtNoCost) {
  SimulatedBank bank;
  bank.open(kPlenty);
  const LeaseId first = bank.fetched({{1, 2}, {2, 9}});
  EXPECT_EQ(bank.pager().lease_bytes_read(first), bank.stride(1) + bank.stride(2));
  const std::uint64_t requests = bank.pager().stats().requests;

  const LeaseId same = *bank.pager().fetch(std::vector<Node>{{1, 2}, {2, 9}});
  EXPECT_TRUE(*bank.pager().ready(same));
  EXPECT_EQ(bank.pager().lease_bytes_read(same), 0U);
  EXPECT_EQ(bank.pager().lease_fetch_ns(same), 0);
  EXPECT_EQ(bank.pager().stats().requests, requests);
  EXPECT_EQ(bank.pager().blocks(first)->at(0).data, bank.pager().blocks(same)->at(0).data);

  // A sibling path reads the level that differs, and no more.
  const LeaseId sibling = bank.fetched({{1, 2}, {2, 10}});
  EXPECT_EQ(bank.pager().lease_bytes_read(sibling), bank.stride(2));
  EXPECT_EQ(bank.pager().stats().bytes_read, bank.stride(1) + 2 * bank.stride(2));
  EXPECT_EQ(bank.pager().stats().hits, 3U);
  EXPECT_EQ(bank.pager().stats().misses, 3U);
}

TEST(Pager, SharesBlocksInFlight) {
  SimulatedBank bank;
  bank.open(kPlenty);
  const LeaseId first = *bank.pager().fetch(std::vector<Node>{{1, 2}});
  const LeaseId second = *bank.pager().fetch(std::vector<Node>{{1, 2}});
  bank.pager().release(first);
  bank.run();
  EXPECT_TRUE(*bank.pager().ready(second));
  EXPECT_EQ(bank.pager().stats().bytes_read, bank.stride(1));
  bank.expect_contents(second, {{1, 2}});
}

TEST(Pager, ShowsLayersAsTheyArriveTheFirstOnesFirst) {
  SimulatedBank bank;
  bank.open(kPlenty);
  const LeaseId lease = *bank.pager().fetch(std::vector<Node>{{1, 0}, {2, 0}});
  std::vector<std::int64_t> arrived_ns(kLayers, -1);
  do {
    for (std::uint64_t layer = 0; layer < kLayers; ++layer) {
      if (arrived_ns[layer] < 0 && *bank.pager().ready(lease, layer)) arrived_ns[layer] = bank.clock().now_ns();
    }
  } while (bank.step());
  EXPECT_TRUE(std::is_sorted(arrived_ns.begin(), arrived_ns.end()));
  EXPECT_GT(arrived_ns.front(), 0);
  EXPECT_LT(arrived_ns.front(), arrived_ns.back());
  EXPECT_EQ(bank.pager().lease_fetch_ns(lease), arrived_ns.back());
}

TEST(Pager, TheFirstLayerWaitsForNoOtherHoweverLongAReadIs) {
  SimulatedBank bank;
  bank.read_at_once(64 * kPage);
  bank.open(kPlenty);
  const LeaseId lease = *bank.pager().fetch(std::vector<Node>{{0, 0}, {1, 0}, {2, 0}});
  while (!*bank.pager().ready(lease, 0)) ASSERT_TRUE(bank.step());
  // The first layers lie in two pages of level 0 and in one of each other level.
  EXPECT_LE(bank.pager().stats().bytes_read, std::uint64_t{4} * kPage);
  EXPECT_FALSE(*bank.pager().ready(lease));
  bank.run();
  EXPECT_TRUE(*bank.pager().ready(lease));
  bank.expect_contents(lease, {{0, 0}, {1, 0}, {2, 0}});
}

TEST(Pager, TheLastFileThatHasANodeWins) {
  SimulatedBank bank;
  const std::vector<std::byte> base(bank.expected({1, 3}).begin(), bank.expected({1, 3}).end());
  bank.add({.level = 1, .rows_per_block = 16, .nodes = {3, 0}, .seed = 9});
  bank.add({.level = 1, .rows_per_block = 16, .nodes = {0}, .seed = 10});
  bank.open(kPlenty);
  const std::vector<Node> nodes = {{1, 3}, {1, 0}, {1, 1}};
  const LeaseId lease = bank.fetched(nodes);
  bank.expect_contents(lease, nodes);
  EXPECT_NE(std::memcmp(bank.pager().blocks(lease)->at(0).data, base.data(), base.size()), 0);
}

TEST(Pager, SkipsNodesWithoutABlock) {
  SimulatedBank bank(DType::kF32, {5, 9});
  bank.open(kPlenty);
  bank.expect_contents(bank.fetched({{1, 2}, {2, 8}}), {{1, 2}});
  const LeaseId empty = *bank.pager().fetch(std::vector<Node>{{2, 8}});
  EXPECT_TRUE(*bank.pager().ready(empty));
  EXPECT_TRUE(bank.pager().blocks(empty)->empty());
}

TEST(Pager, RefusesWhatDoesNotExist) {
  SimulatedBank bank;
  bank.open(kPlenty);
  const auto code = [&](const std::vector<Node>& nodes) { return bank.pager().fetch(nodes).error().code; };
  EXPECT_EQ(code({{3, 0}}), ErrorCode::kNotFound);
  EXPECT_EQ(code({{1, 4}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({{1, 1}, {1, 1}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(bank.pager().fetch(std::vector<Node>{{1, 1}}, 77).error().code, ErrorCode::kCancelled);
  EXPECT_EQ(bank.pager().stats().fetches, 0U);
}

TEST(Pager, RefusesBlockedSubtreesAndRemovedNodes) {
  SimulatedBank bank;
  bank.open(PagerOptions{.budget = kPlenty, .blocked = {{1, 2}, {0, 0}}, .removed = {{1, 3}, {2, 0}}});
  const auto refused = [&](Node node) {
    const auto lease = bank.pager().fetch(std::vector<Node>{{1, 1}, node});
    return !lease && lease.error().code == ErrorCode::kBlocked;
  };
  EXPECT_TRUE(refused({1, 2}));
  EXPECT_TRUE(refused({2, 8}));    // below (1, 2)
  EXPECT_TRUE(refused({2, 11}));   // below (1, 2)
  EXPECT_FALSE(refused({2, 12}));  // below the removed (1, 3): removal takes one block
  EXPECT_TRUE(refused({1, 3}));
  EXPECT_TRUE(refused({2, 0}));
  EXPECT_TRUE(refused({0, 0}));  // the generic memory itself; nobody's parent
  EXPECT_FALSE(refused({1, 0}));
}

TEST(Pager, NamesTheSmallestBudgetThatWouldDo) {
  SimulatedBank bank;
  const std::uint64_t needed = bank.stride(1) + bank.stride(2);
  bank.open(needed - 1);
  const std::vector<Node> path = {{1, 0}, {2, 0}};
  const auto refused = bank.pager().fetch(path);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNeverFits);
  EXPECT_EQ(refused.error().required_bytes, needed);
  EXPECT_NE(refused.error().message.find(std::to_string(needed)), std::string::npos);

  SimulatedBank enough;
  enough.open(needed);
  enough.expect_contents(enough.fetched(path), path);
}

TEST(Pager, IsBusyWhileLeasesHoldTheBudgetAndChangesNothing) {
  SimulatedBank bank;
  bank.open(2 * bank.stride(1));
  const LeaseId first = bank.fetched({{1, 0}});
  bank.fetched({{1, 1}});
  const auto refused = bank.pager().fetch(std::vector<Node>{{1, 2}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kBusy);
  EXPECT_EQ(bank.pager().stats().evictions, 0U);
  bank.pager().release(first);
  bank.expect_contents(bank.fetched({{1, 2}}), {{1, 2}});
  EXPECT_EQ(bank.pager().stats().evictions, 1U);
}

TEST(Pager, ReplacingNeedsNoDoubleBudget) {
  SimulatedBank bank;
  bank.open(bank.stride(1) + bank.stride(2));
  LeaseId lease = bank.fetched({{1, 0}, {2, 0}});
  lease = bank.fetched({{1, 0}, {2, 1}}, lease);  // a sibling: reads level 2 alone
  EXPECT_EQ(bank.pager().lease_bytes_read(lease), bank.stride(2));
  const LeaseId other = bank.fetched({{1, 3}, {2, 15}}, lease);
  bank.expect_contents(other, {{1, 3}, {2, 15}});
  EXPECT_EQ(bank.pager().ready(lease).error().code, ErrorCode::kCancelled);
  EXPECT_EQ(bank.pager().stats().leases, 1U);
  EXPECT_EQ(bank.pager().stats().peak_bytes, bank.stride(1) + bank.stride(2));
}

TEST(Pager, AFailedReplacementLeavesTheOldLease) {
  SimulatedBank bank;
  bank.open(2 * bank.stride(1));
  const LeaseId mine = bank.fetched({{1, 0}});
  bank.fetched({{1, 1}});
  // Two blocks, of which the other lease leaves room for one.
  const auto refused = bank.pager().fetch(std::vector<Node>{{1, 2}, {1, 3}}, mine);
  EXPECT_EQ(refused.error().code, ErrorCode::kBusy);
  EXPECT_TRUE(*bank.pager().ready(mine));
  bank.expect_contents(mine, {{1, 0}});
}

TEST(Pager, ReplacingALeaseInFlightWaitsForItsReadsNotForTheCaller) {
  SimulatedBank bank;
  const std::uint64_t budget = bank.stride(1) + bank.stride(2);
  bank.open(budget);
  LeaseId lease = *bank.pager().fetch(std::vector<Node>{{1, 0}, {2, 0}});
  for (std::uint64_t topic = 1; topic < 4; ++topic) {
    const auto next = bank.pager().fetch(std::vector<Node>{{1, topic}, {2, 4 * topic}}, lease);
    ASSERT_TRUE(next) << next.error().message;
    lease = *next;
    const PagerStats stats = bank.pager().stats();
    EXPECT_LE(stats.resident_bytes + stats.in_flight_bytes, budget);
  }
  bank.run();
  bank.expect_contents(lease, {{1, 3}, {2, 12}});
  EXPECT_EQ(bank.pager().stats().peak_bytes, budget);
}

TEST(Pager, ReleaseDuringFlightAbandonsTheReads) {
  SimulatedBank bank;
  bank.open(kPlenty);
  const LeaseId lease = *bank.pager().fetch(std::vector<Node>{{1, 0}});
  bank.step();
  bank.pager().release(lease);
  bank.run();
  EXPECT_EQ(bank.pager().stats().resident_bytes, 0U);
  EXPECT_EQ(bank.pager().stats().in_flight_bytes, 0U);
  bank.expect_contents(bank.fetched({{1, 0}}), {{1, 0}});
}

TEST(Pager, EvictsTheColdestBlockOfTheDeepestLevelFirst) {
  SimulatedBank bank;
  bank.open(bank.stride(1) + 3 * bank.stride(2));
  bank.pager().release(bank.fetched({{1, 0}}));  // the longest idle, but shallow
  bank.pager().release(bank.fetched({{2, 0}}));
  bank.pager().release(bank.fetched({{2, 1}}));
  bank.pager().release(bank.fetched({{2, 2}}));
  bank.pager().release(bank.fetched({{2, 0}}));  // used again: (2, 1) is now the least recent
  bank.pager().release(bank.fetched({{2, 3}}));
  EXPECT_EQ(bank.pager().stats().evictions, 1U);

  const auto hits = [&](Node node) {
    const std::uint64_t before = bank.pager().stats().hits;
    bank.pager().release(bank.fetched({node}));
    return bank.pager().stats().hits > before;
  };
  EXPECT_TRUE(hits({1, 0}));
  EXPECT_TRUE(hits({2, 0}));
  EXPECT_TRUE(hits({2, 2}));
  EXPECT_FALSE(hits({2, 1}));
}

TEST(Pager, ShrinkEvictsUnusedBlocksOnly) {
  SimulatedBank bank;
  bank.open(kPlenty);
  const LeaseId kept = bank.fetched({{1, 0}});
  bank.pager().release(bank.fetched({{1, 1}, {2, 0}, {2, 1}}));
  EXPECT_EQ(bank.pager().shrink(1), bank.stride(2));
  EXPECT_EQ(bank.pager().shrink(kPlenty), bank.stride(1) + bank.stride(2));
  EXPECT_EQ(bank.pager().shrink(kPlenty), 0U);
  EXPECT_EQ(bank.pager().stats().resident_bytes, bank.stride(1));
  bank.expect_contents(kept, {{1, 0}});
}

TEST(Pager, OpenRefusesLevelsThatDoNotBelongTogether) {
  const testing::TempDir dir;
  const ManualClock clock;
  const auto open = [&](const std::vector<std::vector<testing::LevelShape>>& shapes) {
    std::vector<std::vector<std::string>> paths;
    int count = 0;
    for (const auto& level : shapes) {
      paths.emplace_back();
      for (const auto& shape : level) {
        paths.back().push_back(dir.file(std::to_string(count++)));
        testing::write_level(paths.back().back(), shape);
      }
    }
    return Pager::open(*open_levels(paths, StorageKind::kDirect), PagerOptions{.budget = kPlenty}, clock);
  };
  EXPECT_TRUE(open({{{.level = 0}}, {{.level = 1}, {.level = 1, .nodes = {2}}}}));
  EXPECT_EQ(open({}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(open({{}}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(open({{{.level = 1}}, {{.level = 1}}}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(open({{{.level = 0}}, {{.level = 1, .d_model = 32}}}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(open({{{.level = 1}, {.level = 1, .dtype = DType::kI8}}}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(open_levels({{dir.file("absent")}}, StorageKind::kAuto).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace edge
