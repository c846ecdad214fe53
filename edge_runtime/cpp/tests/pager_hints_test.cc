// Hints (prefetch) and pins.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "edge_runtime/pager.h"
#include "simulated_bank.h"

namespace edge {
namespace {

using testing::SimulatedBank;

constexpr std::uint64_t kPlenty = 1U << 22U;

std::uint64_t hint(SimulatedBank& bank, const std::vector<Node>& nodes) {
  const auto bytes = bank.pager().prefetch(nodes);
  EXPECT_TRUE(bytes) << bytes.error().message;
  return bytes.value_or(0);
}

// Whether a fetch finds the block in memory.
bool hits(SimulatedBank& bank, Node node) {
  const LeaseId lease = bank.fetched({node});
  const bool hit = bank.pager().lease_bytes_read(lease) == 0;
  bank.pager().release(lease);
  return hit;
}

// Fetches that leave all but `node` behind.
void move_on(SimulatedBank& bank, Node node) {
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(hits(bank, node));
}

TEST(PagerHints, BringWhatAFetchThenFinds) {
  SimulatedBank bank;
  bank.open(kPlenty);
  EXPECT_EQ(hint(bank, {{1, 0}, {2, 0}}), bank.stride(1) + bank.stride(2));
  EXPECT_EQ(hint(bank, {{1, 0}}), 0U);  // on its way already
  EXPECT_EQ(bank.pager().stats().in_flight_bytes, bank.stride(1) + bank.stride(2));
  bank.run();
  EXPECT_EQ(bank.pager().stats().resident_bytes, bank.stride(1) + bank.stride(2));
  const LeaseId lease = *bank.pager().fetch(std::vector<Node>{{1, 0}, {2, 0}});
  EXPECT_TRUE(*bank.pager().ready(lease));
  EXPECT_EQ(bank.pager().lease_bytes_read(lease), 0U);
  bank.expect_contents(lease, {{1, 0}, {2, 0}});
  EXPECT_EQ(bank.pager().stats().prefetches, 2U);
  EXPECT_EQ(bank.pager().stats().prefetch_hits, 2U);
  bank.pager().release(lease);
  EXPECT_TRUE(hits(bank, {1, 0}));
  EXPECT_EQ(bank.pager().stats().prefetch_hits, 2U);  // a hint is told once
}

TEST(PagerHints, ReadBehindFetchesOneRequestAtATime) {
  SimulatedBank bank;
  bank.open(kPlenty);
  hint(bank, {{1, 0}, {1, 2}});
  EXPECT_EQ(bank.pager().stats().requests, 1U);
  const LeaseId lease = *bank.pager().fetch(std::vector<Node>{{1, 1}});
  while (!*bank.pager().ready(lease)) ASSERT_TRUE(bank.step());
  // The fetch's three pages, the hint's first before them, and its second once the device had nothing else to do.
  EXPECT_LE(bank.pager().stats().requests, 5U);
  EXPECT_EQ(bank.pager().stats().resident_bytes, bank.stride(1));
  bank.run();
  EXPECT_EQ(bank.pager().stats().resident_bytes, 3 * bank.stride(1));
}

TEST(PagerHints, AreReadAsFetchesOnceTheyAreFetched) {
  SimulatedBank bank;
  bank.open(kPlenty);
  hint(bank, {{1, 0}, {1, 1}, {1, 2}});
  const LeaseId lease = *bank.pager().fetch(std::vector<Node>{{1, 2}});
  EXPECT_EQ(bank.pager().stats().requests, 4U);  // one of (1, 0), all three of (1, 2)
  while (!*bank.pager().ready(lease)) ASSERT_TRUE(bank.step());
  bank.expect_contents(lease, {{1, 2}});
  EXPECT_EQ(bank.pager().lease_bytes_read(lease), 0U);
  EXPECT_EQ(bank.pager().stats().prefetch_hits, 1U);
}

TEST(PagerHints, NeverTakeWhatIsLeasedOrWarmer) {
  SimulatedBank bank;
  bank.open(2 * bank.stride(1));
  const LeaseId leased = bank.fetched({{1, 0}});
  bank.pager().release(bank.fetched({{1, 1}}));
  EXPECT_EQ(hint(bank, {{1, 2}}), 0U);
  EXPECT_TRUE(hits(bank, {1, 1}));
  // Once other fetches have left it behind, it gives way; what is leased never does.
  move_on(bank, {1, 0});
  EXPECT_EQ(hint(bank, {{1, 2}, {1, 3}}), bank.stride(1));
  EXPECT_EQ(bank.pager().stats().evictions, 1U);
  bank.run();
  bank.expect_contents(leased, {{1, 0}});
  EXPECT_TRUE(hits(bank, {1, 2}));
}

TEST(PagerHints, EvictNothingWhereThatWouldNotDo) {
  SimulatedBank bank;
  bank.open(bank.stride(1) + bank.stride(2));
  bank.pager().release(bank.fetched({{2, 0}}));
  const LeaseId leased = bank.fetched({{1, 0}});
  move_on(bank, {1, 0});
  EXPECT_EQ(hint(bank, {{1, 1}}), 0U);  // needs three pages: the cold block has two
  EXPECT_EQ(bank.pager().stats().evictions, 0U);
  EXPECT_EQ(hint(bank, {{2, 1}}), bank.stride(2));
  EXPECT_EQ(bank.pager().stats().evictions, 1U);
  bank.pager().release(leased);
}

TEST(PagerHints, KeepWhatIsThereAlready) {
  SimulatedBank bank;
  bank.open(2 * bank.stride(1));
  bank.pager().release(bank.fetched({{1, 0}}));
  const LeaseId leased = bank.fetched({{1, 1}});
  move_on(bank, {1, 1});
  EXPECT_EQ(hint(bank, {{1, 0}}), 0U);
  EXPECT_EQ(hint(bank, {{1, 2}}), 0U);  // (1, 0) is now as warm as a hint
  bank.pager().release(leased);
  EXPECT_TRUE(hits(bank, {1, 0}));
}

TEST(PagerHints, GiveTheirRoomBackToAFetch) {
  SimulatedBank bank;
  const std::uint64_t budget = 2 * bank.stride(1);
  bank.open(budget);
  EXPECT_EQ(hint(bank, {{1, 0}, {1, 1}}), budget);
  // The second hint has not begun: its room is there at once.
  const LeaseId first = *bank.pager().fetch(std::vector<Node>{{1, 2}});
  EXPECT_NE(bank.pager().blocks(first)->at(0).data, nullptr);
  // The first one has: its room is there when its read has ended.
  const LeaseId second = *bank.pager().fetch(std::vector<Node>{{1, 3}});
  bank.run();
  bank.expect_contents(first, {{1, 2}});
  bank.expect_contents(second, {{1, 3}});
  EXPECT_EQ(bank.pager().stats().peak_bytes, budget);
  EXPECT_EQ(bank.pager().stats().prefetch_hits, 0U);
}

TEST(PagerHints, AFailedReadIsForgotten) {
  SimulatedBank bank;
  bank.open(bank.stride(1));
  bank.storage(1).add({BankLevel::open(bank.path(1))->block_offset(0), FaultKind::kIoError, 1});
  EXPECT_EQ(hint(bank, {{1, 0}}), bank.stride(1));
  bank.run();
  EXPECT_EQ(bank.pager().stats().failures, 1U);
  EXPECT_EQ(bank.pager().stats().in_flight_bytes, 0U);
  bank.expect_contents(bank.fetched({{1, 0}}), {{1, 0}});
}

TEST(PagerHints, RefuseWhatAFetchWouldRefuse) {
  SimulatedBank bank;
  bank.open(PagerOptions{.budget = kPlenty, .blocked = {{1, 2}}});
  const auto code = [&](const std::vector<Node>& nodes) { return bank.pager().prefetch(nodes).error().code; };
  EXPECT_EQ(code({{7, 0}}), ErrorCode::kNotFound);
  EXPECT_EQ(code({{1, 4}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({{2, 8}}), ErrorCode::kBlocked);
  EXPECT_EQ(bank.pager().stats().prefetches, 0U);
}

TEST(PagerHints, ShrinkDropsThem) {
  SimulatedBank bank;
  bank.open(kPlenty);
  hint(bank, {{1, 0}, {1, 1}});
  EXPECT_EQ(bank.pager().shrink(kPlenty), bank.stride(1));  // the other is freed when its read has ended
  bank.run();
  EXPECT_EQ(bank.pager().stats().resident_bytes, 0U);
  EXPECT_EQ(bank.pager().stats().in_flight_bytes, 0U);
}

TEST(PagerPins, AreLoadedAtOpenAndNeverEvicted) {
  SimulatedBank bank;
  const std::uint64_t pinned = bank.stride(0) + bank.stride(1);
  bank.open(PagerOptions{
      .budget = pinned + bank.stride(1) + bank.stride(2), .pinned = {{1, 1}, {1, 1}}, .pinned_levels = {0}});
  EXPECT_EQ(bank.pager().stats().pinned_bytes, pinned);
  bank.pager().poll();
  bank.run();
  EXPECT_EQ(bank.pager().stats().resident_bytes, pinned);
  EXPECT_EQ(bank.pager().stats().prefetches, 0U);
  for (std::uint64_t topic : {0, 2, 3, 0}) bank.pager().release(bank.fetched({{1, topic}, {2, 4 * topic}}));
  EXPECT_LE(bank.pager().stats().peak_bytes, bank.pager().stats().budget_bytes);
  bank.pager().shrink(kPlenty);
  EXPECT_EQ(bank.pager().stats().resident_bytes, pinned);
  EXPECT_TRUE(hits(bank, {1, 1}));
  EXPECT_TRUE(hits(bank, {0, 0}));
}

TEST(PagerPins, MustFitBesideOnePath) {
  SimulatedBank bank;
  // Level 1 is all there; of a path only its leaf remains, and the generic memory is larger than that.
  const std::uint64_t required = 4 * bank.stride(1) + bank.stride(0);
  const Status refused = bank.try_open(PagerOptions{.budget = required - 1, .pinned_levels = {1}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNeverFits);
  EXPECT_EQ(refused.error().required_bytes, required);
  EXPECT_NE(refused.error().message.find(std::to_string(required)), std::string::npos);

  SimulatedBank enough;
  enough.open(PagerOptions{.budget = required, .pinned_levels = {1}});
  enough.expect_contents(enough.fetched({{0, 0}}), {{0, 0}});
  EXPECT_EQ(enough.pager().fetch(std::vector<Node>{{1, 0}, {2, 0}}).error().code, ErrorCode::kBusy);
  const auto never = enough.pager().fetch(std::vector<Node>{{0, 0}, {1, 0}, {2, 0}});
  EXPECT_EQ(never.error().code, ErrorCode::kNeverFits);
  EXPECT_EQ(never.error().required_bytes, required + enough.stride(2));
}

TEST(PagerPins, AreServedBeforeTheyAreLoaded) {
  SimulatedBank bank;
  bank.open(PagerOptions{.budget = kPlenty, .pinned_levels = {1}});
  const LeaseId lease = *bank.pager().fetch(std::vector<Node>{{1, 3}});
  while (!*bank.pager().ready(lease)) ASSERT_TRUE(bank.step());
  bank.expect_contents(lease, {{1, 3}});
  EXPECT_LT(bank.pager().stats().resident_bytes, 3 * bank.stride(1));  // before most others
  bank.pager().release(lease);
  bank.run();
  EXPECT_EQ(bank.pager().stats().resident_bytes, 4 * bank.stride(1));
  EXPECT_EQ(bank.pager().stats().bytes_read, 4 * bank.stride(1));
}

TEST(PagerPins, ADamagedOneIsReadAgainWhenItIsFetched) {
  SimulatedBank bank;
  bank.open(PagerOptions{.budget = bank.stride(1) + bank.stride(0), .pinned = {{1, 2}}});
  bank.storage(1).add({BankLevel::open(bank.path(1))->block_offset(2), FaultKind::kBitFlip, 2});
  bank.pager().poll();
  bank.run();
  EXPECT_EQ(bank.pager().stats().failures, 1U);
  EXPECT_EQ(bank.pager().stats().resident_bytes, 0U);
  const LeaseId other = bank.fetched({{0, 0}});  // its room stays kept for it
  const LeaseId lease = bank.fetched({{1, 2}});
  bank.expect_contents(lease, {{1, 2}});
  bank.pager().release(lease);
  bank.pager().release(other);
  EXPECT_EQ(bank.pager().shrink(kPlenty), bank.stride(0));
  EXPECT_TRUE(hits(bank, {1, 2}));
}

TEST(PagerPins, RefusedNodesAreLeftOutOfALevelAndAreAnErrorByName) {
  SimulatedBank bank;
  bank.open(PagerOptions{.budget = kPlenty, .blocked = {{1, 2}}, .pinned_levels = {1}});
  EXPECT_EQ(bank.pager().stats().pinned_bytes, 3 * bank.stride(1));
  const auto code = [](const PagerOptions& options) { return SimulatedBank().try_open(options).error().code; };
  EXPECT_EQ(code({.budget = kPlenty, .blocked = {{1, 2}}, .pinned = {{1, 2}}}), ErrorCode::kBlocked);
  EXPECT_EQ(code({.budget = kPlenty, .pinned = {{1, 4}}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({.budget = kPlenty, .pinned = {{5, 0}}}), ErrorCode::kNotFound);
  EXPECT_EQ(code({.budget = kPlenty, .pinned_levels = {5}}), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace edge
