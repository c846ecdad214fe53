#include "edge_runtime/eviction.h"

#include <gtest/gtest.h>

#include <vector>

namespace edge {
namespace {

constexpr auto kHalfLife = static_cast<std::uint64_t>(DecayedFrequency::kHalfLife);

IdleBlock block(std::uint32_t level, std::uint64_t index) { return {.node = {level, index}, .bytes = 1}; }

void use(DecayedFrequency& policy, const IdleBlock& block, const std::vector<std::uint64_t>& times) {
  for (const std::uint64_t time : times) policy.used(block.node, time);
}

TEST(DecayedFrequency, OneUseCountsAsTwoThatAreAHalfLifeOlder) {
  DecayedFrequency policy;
  use(policy, block(1, 0), {1, 1});
  use(policy, block(1, 1), {kHalfLife});      // a little too early to make up for two
  use(policy, block(1, 2), {kHalfLife + 2});  // late enough
  EXPECT_TRUE(policy.colder(block(1, 1), block(1, 0), kHalfLife + 2));
  EXPECT_TRUE(policy.colder(block(1, 0), block(1, 2), kHalfLife + 2));
}

TEST(DecayedFrequency, AUseCountsHalfALevelFurtherDown) {
  DecayedFrequency policy;
  use(policy, block(1, 0), {1});
  use(policy, block(2, 0), {kHalfLife});
  use(policy, block(2, 1), {kHalfLife + 2});
  EXPECT_TRUE(policy.colder(block(2, 0), block(1, 0), kHalfLife + 2));
  EXPECT_TRUE(policy.colder(block(1, 0), block(2, 1), kHalfLife + 2));
}

TEST(DecayedFrequency, GivesUpTheColdestUntilNoneIsLeft) {
  DecayedFrequency policy;
  EXPECT_FALSE(policy.coldest(0));
  const std::vector<IdleBlock> coldest_first = {block(3, 1), block(2, 5), block(2, 6), block(1, 0), block(1, 2)};
  const std::vector<std::vector<std::uint64_t>> uses = {{18}, {17}, {19}, {16}, {16, 17}};
  for (const std::size_t i : {3, 1, 4, 0, 2}) {
    use(policy, coldest_first[i], uses[i]);
    policy.insert(coldest_first[i]);
  }
  for (const IdleBlock& want : coldest_first) {
    ASSERT_EQ(policy.coldest(20), want.node);
    policy.erase(want);
  }
  EXPECT_FALSE(policy.coldest(20));
}

TEST(DecayedFrequency, AHintCountsAsAUseThatLeavesNoTrace) {
  DecayedFrequency policy;
  use(policy, block(1, 0), {9});
  IdleBlock hinted = block(1, 1);
  hinted.hint = 8;
  EXPECT_TRUE(policy.colder(hinted, block(1, 0), 9));
  hinted.hint = 10;
  EXPECT_TRUE(policy.colder(block(1, 0), hinted, 9));
  policy.insert(hinted);
  policy.erase(hinted);
  hinted.hint.reset();
  EXPECT_TRUE(policy.colder(hinted, block(1, 0), 9));
}

TEST(DecayedFrequency, KnowsANodeBeyondItsEvictionUntilItHasFadedAway) {
  DecayedFrequency policy;
  use(policy, block(1, 0), {1, 2, 3});
  policy.insert(block(1, 0));
  policy.erase(block(1, 0));  // evicted
  use(policy, block(1, 0), {5});
  use(policy, block(1, 1), {6});
  EXPECT_TRUE(policy.colder(block(1, 1), block(1, 0), 6));

  policy.insert(block(1, 1));  // stays known: it is idle
  for (std::uint64_t now = 7; now < 100 * kHalfLife; ++now) policy.used({2, now}, now);
  EXPECT_LT(policy.known(), 40 * kHalfLife);
  EXPECT_EQ(policy.coldest(100 * kHalfLife), (Node{1, 1}));
  policy.erase(block(1, 1));
  EXPECT_FALSE(policy.coldest(100 * kHalfLife));
}

}  // namespace
}  // namespace edge
