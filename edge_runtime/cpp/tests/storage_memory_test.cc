// Memory of blocks is handed on, and never exceeds its limit.
#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../src/block_memory.h"
#include "bank_fixture.h"
#include "edge_runtime/blocking_pager.h"
#include "storage_fixture.h"

namespace edge {
namespace {

Buffer acquire(BlockMemory& memory, std::uint64_t length) {
  auto buffer = memory.acquire(length, "file");
  EXPECT_TRUE(buffer) << buffer.error().message;
  std::memset(buffer->get(), 1, length);  // all of it is there
  return std::move(*buffer);
}

constexpr std::uint64_t kBig = 300 * kPage;  // two huge pages and a rest

TEST(BlockMemory, HandsMemoryOnToBlocksOfTheSameLength) {
  BlockMemory memory(2 * kBig);
  Buffer buffer = acquire(memory, kBig);
  const std::byte* const address = buffer.get();
  EXPECT_EQ(memory.kept_bytes(), 0U);
  buffer.reset();
  EXPECT_EQ(memory.kept_bytes(), kBig);
  const Buffer other = acquire(memory, kPage);
  EXPECT_EQ(memory.kept_bytes(), kBig);
  EXPECT_NE(other.get(), address);
  const Buffer same = acquire(memory, kBig);
  EXPECT_EQ(same.get(), address);
  EXPECT_EQ(memory.kept_bytes(), 0U);
}

TEST(BlockMemory, KeepsNoMoreThanTheLimitLeaves) {
  BlockMemory memory(4 * kPage);
  Buffer first = acquire(memory, 2 * kPage);
  Buffer second = acquire(memory, 2 * kPage);
  first.reset();
  second.reset();
  EXPECT_EQ(memory.kept_bytes(), 4 * kPage);
  const Buffer third = acquire(memory, 3 * kPage);  // room for it, in whole buffers
  EXPECT_EQ(memory.kept_bytes(), 0U);
  Buffer beyond = acquire(memory, 2 * kPage);  // the caller's business; it is not kept
  beyond.reset();
  EXPECT_EQ(memory.kept_bytes(), 0U);
}

TEST(BlockMemory, MakesRoomForBlocksThatLieElsewhere) {
  BlockMemory memory(4 * kPage);
  Buffer buffer = acquire(memory, 2 * kPage);
  buffer.reset();
  memory.charge(2 * kPage);
  EXPECT_EQ(memory.kept_bytes(), 2 * kPage);
  memory.charge(kPage);
  EXPECT_EQ(memory.kept_bytes(), 0U);
  memory.discharge(3 * kPage);
  acquire(memory, 4 * kPage).reset();
  EXPECT_EQ(memory.kept_bytes(), 4 * kPage);
}

TEST(BlockMemory, KeepsNothingWithoutALimitAndAfterTrim) {
  BlockMemory none(0);
  acquire(none, kPage).reset();
  EXPECT_EQ(none.kept_bytes(), 0U);
  BlockMemory memory(kPage);
  acquire(memory, kPage).reset();
  EXPECT_EQ(memory.kept_bytes(), kPage);
  memory.trim();
  EXPECT_EQ(memory.kept_bytes(), 0U);
  EXPECT_EQ(memory.spare_bytes(), 0U);
}

// Blocks share huge pages: each has its own bytes all the same, and all of it stays below the limit.
TEST(BlockMemory, BlocksOfAllSizesStayApartAndBelowTheLimit) {
  const std::vector<std::uint64_t> pages = {1, 15, 16, 17, 53, 64, 72, 128, 129, 200, 211, 256, 300};
  for (const std::uint64_t limit : {std::uint64_t{0}, 600 * kPage, 1000 * kPage}) {
    BlockMemory memory(limit);
    struct Filled {
      Buffer buffer;
      std::uint64_t length;
      std::byte value;
    };
    std::vector<Filled> blocks;
    std::uint64_t live = 0;
    std::mt19937 random(3);
    for (int round = 0; round < 400; ++round) {
      const std::uint64_t length = pages[random() % pages.size()] * kPage;
      const std::uint64_t most = std::max(limit, 600 * kPage);
      while (!blocks.empty() && (live + length > most || random() % 4 == 0)) {
        const auto which = static_cast<std::ptrdiff_t>(random() % blocks.size());
        const Filled& block = blocks[static_cast<std::size_t>(which)];
        const std::vector<std::byte> expected(block.length, block.value);
        ASSERT_EQ(std::memcmp(block.buffer.get(), expected.data(), block.length), 0) << round;
        live -= block.length;
        blocks.erase(blocks.begin() + which);
      }
      auto buffer = memory.acquire(length, "file");
      ASSERT_TRUE(buffer);
      const auto value = static_cast<std::byte>(round);
      std::memset(buffer->get(), static_cast<int>(value), length);
      blocks.push_back({std::move(*buffer), length, value});
      live += length;
      ASSERT_LE(live + memory.kept_bytes() + memory.spare_bytes(), std::max(live, limit)) << round;
    }
  }
}

TEST(BlockMemory, SaysThatTheSystemHasNone) {
  BlockMemory memory(0);
  const auto buffer = memory.acquire(std::uint64_t{1} << 62U, "the/file");
  ASSERT_FALSE(buffer);
  EXPECT_EQ(buffer.error().code, ErrorCode::kIo);
  EXPECT_NE(buffer.error().message.find("the/file"), std::string::npos);
}

TEST(BlockMemory, AShrinkingPagerGivesItBack) {
  const testing::TempDir dir;
  const std::string path = dir.file("level");
  testing::write_level(path, {.level = 1});
  const std::uint64_t stride = BankLevel::open(path)->spec().stride();
  const auto memory = make_block_memory(2 * stride);
  const auto pager =
      *BlockingPager::open({{path}}, StorageKind::kDirect, PagerOptions{.budget = 2 * stride}, {.memory = memory});
  for (std::uint64_t node = 0; node < 4; ++node) {
    ASSERT_TRUE((*pager->fetch(std::vector<Node>{{1, node}}))->wait());
    EXPECT_LE(memory->kept_bytes(), stride);
  }
  pager->shrink(2 * stride);
  EXPECT_EQ(memory->kept_bytes(), 0U);
}

}  // namespace
}  // namespace edge
