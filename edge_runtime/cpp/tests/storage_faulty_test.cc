// Breaks reads on purpose, and looks at what the pager over them serves.
#include "edge_runtime/storage_faulty.h"

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bank_fixture.h"
#include "edge_runtime/blocking_pager.h"
#include "edge_runtime/storage_simulated.h"
#include "storage_fixture.h"

namespace edge {
namespace {

using testing::random_bytes;
using testing::Reader;
using testing::TempDir;
using testing::write_bytes;

TEST(FaultyStorage, StrikesReadsThatCoverTheByteAsOftenAsTold) {
  const TempDir dir;
  const auto bytes = random_bytes(4 * kPage, 2);
  write_bytes(dir.file("file"), bytes);
  FaultyStorage storage(*open_direct(dir.file("file"), make_device()),
                        {{kPage + 5, FaultKind::kBitFlip, 2}, {3 * kPage, FaultKind::kIoError, 1}});
  Reader reader(storage);
  const Buffer buffer = *storage.acquire(0, 4 * kPage);
  const auto damaged = [&](std::uint64_t offset, std::uint64_t length) {
    EXPECT_TRUE(reader.read(offset, length, buffer.get()));
    return std::memcmp(buffer.get() + offset, bytes.data() + offset, length) != 0;
  };
  EXPECT_FALSE(damaged(0, kPage));
  EXPECT_FALSE(damaged(2 * kPage, kPage));
  EXPECT_TRUE(damaged(0, 2 * kPage));
  EXPECT_EQ(buffer.get()[kPage + 5], bytes[kPage + 5] ^ std::byte{1});
  EXPECT_TRUE(damaged(kPage, kPage));
  EXPECT_FALSE(damaged(kPage, kPage));
  EXPECT_EQ(reader.read(3 * kPage, kPage, buffer.get()).error().code, ErrorCode::kIo);
  EXPECT_FALSE(damaged(3 * kPage, kPage));
  storage.add({0, FaultKind::kShortRead, 1});
  EXPECT_EQ(reader.read(0, kPage, buffer.get()).error().code, ErrorCode::kTruncated);
}

TEST(FaultyStorage, DelaysCompletionsByItsClock) {
  ManualClock clock;
  const auto device = std::make_shared<SimulatedDevice>(
      clock, SimulatedDevice::Profile{.latency_ns = 100, .bytes_per_second = 1e12, .lanes = 4});
  FaultyStorage storage(std::make_unique<SimulatedStorage>("file", random_bytes(2 * kPage, 1), device),
                        {{.offset = kPage, .kind = FaultKind::kDelay, .delay_ns = 1000}}, clock);
  const Buffer buffer = *storage.acquire(0, 2 * kPage);
  for (std::uint64_t page = 0; page < 2; ++page) {
    storage.submit({.offset = page * kPage, .length = kPage, .destination = buffer.get() + page * kPage, .tag = page});
  }
  std::vector<Completion> completions;
  clock.advance(500);
  storage.poll(completions);
  ASSERT_EQ(completions.size(), 1U);
  EXPECT_EQ(completions[0].tag, 0U);
  EXPECT_EQ(storage.next_completion_ns(), 1500);
  clock.advance(999);
  storage.poll(completions);
  EXPECT_EQ(completions.size(), 1U);
  clock.advance(1);
  storage.poll(completions);
  ASSERT_EQ(completions.size(), 2U);
  EXPECT_EQ(completions[1].tag, 1U);
  EXPECT_EQ(storage.next_completion_ns(), std::nullopt);
}

TEST(FaultyStorage, WakesItsReaderWhenADelayEnds) {
  const TempDir dir;
  write_bytes(dir.file("file"), random_bytes(kPage, 2));
  FaultyStorage storage(*open_direct(dir.file("file"), make_device()),
                        {{.offset = 0, .kind = FaultKind::kDelay, .delay_ns = 20'000'000}});
  Reader reader(storage);
  const Buffer buffer = *storage.acquire(0, kPage);
  const std::int64_t begin = system_clock().now_ns();
  EXPECT_TRUE(reader.read(0, kPage, buffer.get()));
  EXPECT_GE(system_clock().now_ns() - begin, 20'000'000);
}

TEST(FaultyStorage, ForgetsWhatItHoldsBackWhenDrained) {
  const TempDir dir;
  write_bytes(dir.file("file"), random_bytes(kPage, 2));
  FaultyStorage storage(*open_direct(dir.file("file"), make_device()),
                        {{.offset = 0, .kind = FaultKind::kDelay, .delay_ns = std::int64_t{3600} * 1'000'000'000}});
  const Buffer buffer = *storage.acquire(0, kPage);
  storage.submit({.offset = 0, .length = kPage, .destination = buffer.get(), .tag = 1});
  std::vector<Completion> completions;
  while (!storage.next_completion_ns()) storage.poll(completions);
  storage.drain();
  EXPECT_EQ(storage.next_completion_ns(), std::nullopt);
  EXPECT_TRUE(completions.empty());
}

// Wherever a fault strikes a block, what is served is the file's bytes, or an error.
class FaultyKind : public ::testing::TestWithParam<StorageKind> {};
INSTANTIATE_TEST_SUITE_P(Direct, FaultyKind, ::testing::Values(StorageKind::kDirect, StorageKind::kUring),
                         [](const auto& instance) { return std::string(name(instance.param)); });

TEST_P(FaultyKind, EveryOffsetOfABlockIsServedRightOrNotAtAll) {
  const TempDir dir;
  const std::string path = dir.file("level");
  testing::write_level(path, {.level = 1, .dtype = DType::kI8, .rows_per_block = 24});
  const auto bytes = testing::read_file(path);
  if (const auto storage = open_storage(path, GetParam(), make_device()); !storage)
    GTEST_SKIP() << storage.error().message;
  const auto bank = *BankLevel::open(path);
  const BankLevelSpec& spec = bank.spec();
  const std::uint64_t begin = bank.block_offset(2);
  const std::uint64_t last = spec.layers() - 1;
  const std::vector<std::pair<std::uint64_t, bool>> places = {
      // in the block; whether a checksum covers it
      {0, true},                                                       // the first scale
      {spec.scale_offset(last) + spec.layer_scale_bytes() - 1, true},  // the last one
      {spec.layer_offset(0), true},
      {spec.layer_offset(1) - 1, true},
      {spec.layer_offset(1), true},
      {kPage, true},  // where a chunk begins
      {kPage - 1, true},
      {spec.layer_offset(last) + spec.layer_bytes() - 1, true},
      {spec.stride() - 1, false},  // padding
  };
  ASSERT_GT(spec.stride(), spec.layer_offset(last) + spec.layer_bytes());
  for (const auto& [place, covered] : places) {
    for (const FaultKind kind : {FaultKind::kIoError, FaultKind::kShortRead, FaultKind::kBitFlip, FaultKind::kDelay}) {
      for (const unsigned times : {1U, 9U}) {
        auto faulty = std::make_unique<FaultyStorage>(
            *open_direct(path, make_device(), "a test", GetParam()),
            std::vector<Fault>{{.offset = begin + place, .kind = kind, .times = times, .delay_ns = 1'000'000}});
        std::vector<PagedLevel> levels(1);
        levels[0].push_back({*BankLevel::open(path), std::move(faulty)});
        const auto pager =
            *BlockingPager::open(std::move(levels), PagerOptions{.budget = 1U << 22U, .chunk_bytes = kPage});
        const auto lease = *pager->fetch(std::vector<Node>{{1, 2}});
        const auto blocks = lease->blocks();
        const bool flipped = kind == FaultKind::kBitFlip;
        const bool served = kind == FaultKind::kDelay || (flipped && (times == 1 || !covered));
        ASSERT_EQ(blocks.has_value(), served) << place << " " << static_cast<int>(kind) << " " << times;
        if (!served) {
          EXPECT_NE(blocks.error().message.find(path), std::string::npos) << blocks.error().message;
          continue;
        }
        const std::uint64_t compared = spec.layer_offset(last) + spec.layer_bytes();
        EXPECT_EQ(std::memcmp((*blocks)[0].data, bytes.data() + begin, compared), 0) << place;
      }
    }
  }
}

}  // namespace
}  // namespace edge
