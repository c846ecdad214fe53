// What a pager reads, and what it tells about that.
#include <gtest/gtest.h>

#include <vector>

#include "edge_runtime/pager.h"
#include "simulated_bank.h"

namespace edge {
namespace {

using testing::SimulatedBank;

constexpr std::uint64_t kPlenty = 1U << 22U;

TEST(Pager, APathThatSharesAPrefixReadsOnlyWhatDiffers) {
  SimulatedBank bank;
  bank.add({.level = 3, .rows_per_block = 4});  // 64 leaves, blocks of one page
  bank.open(bank.stride(1) + bank.stride(2) + bank.stride(3));
  const auto path = [](std::uint64_t leaf) { return std::vector<Node>{{1, leaf / 16}, {2, leaf / 4}, {3, leaf}}; };
  const auto read = [&](std::uint32_t level) { return bank.pager().stats().levels[level].bytes_read; };
  LeaseId lease = bank.fetched(path(21));
  lease = bank.fetched(path(22), lease);  // within a level-2 branch
  EXPECT_EQ(bank.pager().lease_bytes_read(lease), bank.stride(3));
  lease = bank.fetched(path(24), lease);  // within a level-1 branch
  EXPECT_EQ(bank.pager().lease_bytes_read(lease), bank.stride(2) + bank.stride(3));
  bank.expect_contents(lease, path(24));
  EXPECT_EQ(read(1), bank.stride(1));
  EXPECT_EQ(read(2), 2 * bank.stride(2));
  EXPECT_EQ(read(3), 3 * bank.stride(3));
  EXPECT_EQ(bank.pager().stats().peak_bytes, bank.stride(1) + bank.stride(2) + bank.stride(3));
}

TEST(Pager, TellsItsLevelsApart) {
  SimulatedBank bank;
  bank.open(bank.stride(1) + bank.stride(2));
  bank.pager().release(bank.fetched({{1, 0}, {2, 0}}));
  bank.pager().release(bank.fetched({{1, 0}, {2, 1}}));
  const PagerStats stats = bank.pager().stats();
  ASSERT_EQ(stats.levels.size(), 3U);
  const LevelStats& shallow = stats.levels[1];
  const LevelStats& deep = stats.levels[2];
  EXPECT_EQ(shallow.level, 1U);
  EXPECT_EQ(shallow.hits, 1U);
  EXPECT_EQ(shallow.misses, 1U);
  EXPECT_EQ(shallow.bytes_read, bank.stride(1));
  EXPECT_EQ(shallow.resident_bytes, bank.stride(1));
  EXPECT_EQ(shallow.evictions, 0U);
  EXPECT_EQ(deep.hits, 0U);
  EXPECT_EQ(deep.misses, 2U);
  EXPECT_EQ(deep.bytes_read, 2 * bank.stride(2));
  EXPECT_EQ(deep.resident_bytes, bank.stride(2));
  EXPECT_EQ(deep.evictions, 1U);
  EXPECT_EQ(stats.hits, 1U);
  EXPECT_EQ(stats.misses, 3U);
  EXPECT_EQ(stats.evictions, 1U);
}

TEST(Pager, RecordsTheLatencyOfFetchesThatHadToWait) {
  SimulatedBank bank;
  bank.open(kPlenty);
  const LeaseId cold = bank.fetched({{1, 0}, {2, 0}});
  bank.fetched({{1, 0}});  // resident: no wait
  const LatencySummary latency = bank.pager().stats().fetch_latency_ns;
  EXPECT_EQ(latency.count, 1U);
  EXPECT_EQ(latency.max, *bank.pager().lease_fetch_ns(cold));
}

}  // namespace
}  // namespace edge
