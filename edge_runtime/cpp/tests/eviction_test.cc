#include "edge_runtime/eviction.h"

#include <gtest/gtest.h>

#include <vector>

namespace edge {
namespace {

IdleBlock block(std::uint32_t level, std::uint64_t index, std::uint64_t last_use) {
  return {.node = {level, index}, .bytes = 1, .uses = 1, .last_use = last_use};
}

TEST(LevelWeightedRecency, WeighsIdleTimeByLevel) {
  const LevelWeightedRecency policy;
  // After 10 fetches: idle for 11 - last_use.
  EXPECT_TRUE(policy.colder(block(2, 0, 10), block(1, 0, 8), 10));   // 16 * 1 against 4 * 3
  EXPECT_FALSE(policy.colder(block(2, 0, 10), block(1, 0, 6), 10));  // 4 * 5
  EXPECT_TRUE(policy.colder(block(2, 0, 9), block(2, 1, 10), 10));
  EXPECT_FALSE(policy.colder(block(2, 0, 9), block(2, 1, 9), 10));
}

TEST(LevelWeightedRecency, GivesUpTheColdestUntilNoneIsLeft) {
  LevelWeightedRecency policy;
  EXPECT_FALSE(policy.coldest(0));
  const std::vector<IdleBlock> coldest_first = {block(3, 1, 18), block(1, 0, 3), block(2, 5, 17), block(2, 6, 19),
                                                block(1, 2, 19)};
  for (const std::size_t i : {3, 1, 4, 0, 2}) policy.insert(coldest_first[i]);
  for (const IdleBlock& want : coldest_first) {
    const auto found = policy.coldest(20);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->node, want.node);
    policy.erase(*found);
  }
  EXPECT_FALSE(policy.coldest(20));
}

TEST(LevelWeightedRecency, ABlockThatIsUsedAgainIsForgotten) {
  LevelWeightedRecency policy;
  policy.insert(block(1, 0, 1));
  policy.insert(block(1, 1, 2));
  policy.erase(block(1, 0, 1));
  EXPECT_EQ(policy.coldest(9)->node, (Node{1, 1}));
}

}  // namespace
}  // namespace edge
