#include "edge_runtime/lease_registry.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <thread>

namespace edge {
namespace {

class Source final : public MemorySource {
 public:
  Status layer(std::uint32_t /*layer*/, std::vector<MemoryRows>& rows) override {
    rows.clear();
    return {};
  }
  std::uint32_t layers() const override { return 1; }
  std::uint32_t d_model() const override { return 8; }
};

ErrorCode code_of(std::int64_t handle) {
  const auto found = find_source(handle);
  return found ? ErrorCode{0} : found.error().code;
}

TEST(LeaseRegistry, FindsWhatIsRegisteredUntilItIsNot) {
  const auto source = std::make_shared<Source>();
  const std::int64_t handle = register_source(source);
  EXPECT_GT(handle, 0);  // 0 means no memory
  EXPECT_EQ(*find_source(handle), source);
  unregister_source(handle);
  EXPECT_EQ(code_of(handle), ErrorCode::kStaleHandle);
  unregister_source(handle);  // again: ignored
}

TEST(LeaseRegistry, AStaleHandleNeverNamesTheNextLease) {
  const auto first = std::make_shared<Source>();
  const auto second = std::make_shared<Source>();
  std::set<std::int64_t> stale;
  for (int round = 0; round < 1000; ++round) {
    const std::int64_t handle = register_source(round % 2 == 0 ? first : second);
    ASSERT_TRUE(stale.insert(handle).second) << "given out twice: " << handle;
    unregister_source(handle);
  }
  const std::int64_t handle = register_source(second);
  for (const std::int64_t old : stale) {
    unregister_source(old);
    ASSERT_EQ(code_of(old), ErrorCode::kStaleHandle);
  }
  EXPECT_EQ(*find_source(handle), second);
  unregister_source(handle);
}

TEST(LeaseRegistry, ForgedHandlesAreStale) {
  for (const std::int64_t forged :
       {std::int64_t{0}, std::int64_t{1}, std::int64_t{-1}, std::int64_t{1} << 32, std::int64_t{0x7fffffff} << 32,
        std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
    EXPECT_EQ(code_of(forged), ErrorCode::kStaleHandle) << forged;
    unregister_source(forged);
  }
}

TEST(LeaseRegistry, DoesNotKeepASourceAlive) {
  auto source = std::make_shared<Source>();
  const std::int64_t handle = register_source(source);
  source.reset();
  EXPECT_EQ(code_of(handle), ErrorCode::kStaleHandle);
  unregister_source(handle);
}

TEST(LeaseRegistry, ServesThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([] {
      for (int round = 0; round < 2000; ++round) {
        const auto source = std::make_shared<Source>();
        const std::int64_t handle = register_source(source);
        const auto found = find_source(handle);
        ASSERT_TRUE(found);
        ASSERT_EQ(*found, source);
        unregister_source(handle);
        ASSERT_FALSE(find_source(handle));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace edge
