// The thread-safe shell, over real files.
#include "edge_runtime/blocking_pager.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>
#include <utility>

#include "bank_fixture.h"
#include "edge_runtime/memory_ffn.h"
#include "gated_storage.h"

namespace edge {
namespace {

using testing::GatedStorage;
using testing::kLayers;
using testing::kWidth;
using testing::TempDir;
using testing::write_level;

class BlockingPagerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (std::uint32_t level = 0; level < 3; ++level) {
      paths_.push_back({dir_.file("level" + std::to_string(level))});
      write_level(paths_[level][0], {.level = level, .rows_per_block = 24 - 8 * level});
      banks_.push_back(*BankLevel::open(paths_[level][0]));
      bytes_.push_back(testing::read_file(paths_[level][0]));
    }
  }

  std::shared_ptr<BlockingPager> open(std::uint64_t budget, StorageKind kind = StorageKind::kDirect) {
    auto pager = BlockingPager::open(paths_, kind, PagerOptions{.budget = budget, .chunk_bytes = kPage});
    EXPECT_TRUE(pager) << pager.error().message;
    return std::move(*pager);
  }

  // Over a gate that is shut. `open_gate` opens it.
  std::shared_ptr<BlockingPager> open_gated(std::uint64_t budget) {
    const auto device = make_device();
    std::vector<PagedLevel> levels(paths_.size());
    for (std::size_t level = 0; level < paths_.size(); ++level) {
      auto gated = std::make_unique<GatedStorage>(*open_direct(paths_[level][0], device), gate_);
      gated_.push_back(gated.get());
      levels[level].push_back({*BankLevel::open(paths_[level][0]), std::move(gated)});
    }
    return *BlockingPager::open(std::move(levels), PagerOptions{.budget = budget});
  }
  void open_gate() {
    *gate_ = true;
    for (const GatedStorage* storage : gated_) storage->wake();
  }

  std::uint64_t stride(std::uint32_t level) const { return banks_[level].spec().stride(); }

  void expect_contents(Lease& lease) const {
    const auto blocks = lease.blocks();
    ASSERT_TRUE(blocks) << blocks.error().message;
    for (const LeasedBlock& block : *blocks) {
      const BankLevel& bank = banks_[block.node.level];
      const auto row = static_cast<std::uint64_t>(bank.row_of(block.node.index));
      const std::byte* const want = bytes_[block.node.level].data() + bank.block_offset(row);
      EXPECT_EQ(std::memcmp(block.data, want, bank.spec().stride()), 0) << "level " << block.node.level;
    }
  }

  static std::shared_ptr<Lease> fetch(BlockingPager& pager, const std::vector<Node>& nodes) {
    auto lease = pager.fetch(nodes);
    EXPECT_TRUE(lease) << lease.error().message;
    return std::move(*lease);
  }

  TempDir dir_;
  std::vector<std::vector<std::string>> paths_;
  std::vector<BankLevel> banks_;
  std::vector<std::vector<std::byte>> bytes_;
  std::shared_ptr<std::atomic<bool>> gate_ = std::make_shared<std::atomic<bool>>(false);
  std::vector<GatedStorage*> gated_;
};

constexpr std::uint64_t kPlenty = 1U << 22U;

TEST_F(BlockingPagerTest, ManyThreadsFetchWaitAndReleaseUnderOneBudget) {
  for (const StorageKind kind : {StorageKind::kDirect, StorageKind::kMapped}) {
    const std::uint64_t budget = 2 * (stride(0) + stride(1) + stride(2));
    const auto pager = open(budget, kind);
    std::atomic<int> served = 0;
    std::vector<std::thread> threads;
    for (std::uint32_t thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] {
        std::mt19937 random(thread);
        for (int round = 0; round < 60; ++round) {
          const std::uint64_t leaf = random() % 16;
          const std::vector<Node> path = {{0, 0}, {1, leaf / 4}, {2, leaf}};
          const auto lease = pager->fetch(path);
          if (!lease) {
            ASSERT_EQ(lease.error().code, ErrorCode::kBusy);
            std::this_thread::yield();
            continue;
          }
          if (random() % 8 == 0) continue;  // released in flight
          for (std::uint32_t layer = 0; layer < kLayers; ++layer) ASSERT_TRUE((*lease)->wait(layer));
          expect_contents(**lease);
          ++served;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    const PagerStats stats = pager->stats().pager;
    EXPECT_LE(stats.peak_bytes, budget);
    EXPECT_EQ(stats.leases, 0U);
    EXPECT_GT(served, 20);
  }
}

TEST_F(BlockingPagerTest, WaitBlocksUntilTheBytesAreThere) {
  const auto pager = open_gated(kPlenty);
  const auto lease = fetch(*pager, {{1, 2}, {2, 9}});
  EXPECT_EQ(lease->fetch_ns(), std::nullopt);
  EXPECT_EQ(lease->bytes_read(), stride(1) + stride(2));
  std::atomic<bool> arrived = false;
  std::thread waiter([&] {
    EXPECT_TRUE(lease->wait(kLayers - 1));
    arrived = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_FALSE(arrived);
  open_gate();
  waiter.join();
  ASSERT_TRUE(lease->wait());
  expect_contents(*lease);
  EXPECT_GT(*lease->fetch_ns(), 20'000'000);
  const BlockingPagerStats stats = pager->stats();
  EXPECT_GE(stats.stall_latency_ns.count, 1U);
  EXPECT_GT(stats.stall_latency_ns.max, 20'000'000);
  EXPECT_GE(stats.stall_ns, stats.stall_latency_ns.max);
  EXPECT_EQ(stats.pager.fetch_latency_ns.count, 1U);
  EXPECT_EQ(lease->wait(kLayers).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(BlockingPagerTest, CancelEndsTheWaitsOfOtherThreads) {
  const auto pager = open_gated(kPlenty);
  const auto lease = fetch(*pager, {{1, 2}});
  Status status;
  std::thread waiter([&] { status = lease->wait(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  lease->cancel();
  waiter.join();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(lease->blocks().error().code, ErrorCode::kCancelled);
  EXPECT_EQ(find_source(lease->handle()).error().code, ErrorCode::kStaleHandle);
}

TEST_F(BlockingPagerTest, CancelAtAnyMomentOfAFetch) {
  const auto pager = open(kPlenty);
  for (int round = 0; round < 200; ++round) {
    pager->shrink(kPlenty);
    const auto lease = fetch(*pager, {{0, 0}, {1, 2}, {2, 9}});
    std::thread other([&, round] {
      std::this_thread::sleep_for(std::chrono::microseconds(5 * round));
      lease->cancel();
    });
    const Status status = lease->wait();
    if (!status) {
      EXPECT_EQ(status.error().code, ErrorCode::kCancelled);
    }
    other.join();
    EXPECT_EQ(lease->wait().error().code, ErrorCode::kCancelled);
  }
  expect_contents(*fetch(*pager, {{0, 0}, {1, 2}, {2, 9}}));
  EXPECT_EQ(pager->stats().pager.leases, 0U);
}

TEST_F(BlockingPagerTest, AHintIsReadWithoutALease) {
  const auto pager = open(kPlenty);
  EXPECT_EQ(*pager->prefetch(std::vector<Node>{{1, 2}, {2, 9}}), stride(1) + stride(2));
  while (pager->stats().pager.resident_bytes < stride(1) + stride(2)) std::this_thread::yield();
  const auto lease = fetch(*pager, {{1, 2}, {2, 9}});
  EXPECT_EQ(lease->bytes_read(), 0U);
  expect_contents(*lease);
  EXPECT_EQ(pager->stats().pager.prefetch_hits, 2U);
}

TEST_F(BlockingPagerTest, PinsAreLoadedWithoutAFetch) {
  const auto pager =
      *BlockingPager::open(paths_, StorageKind::kDirect, PagerOptions{.budget = kPlenty, .pinned_levels = {1}});
  while (pager->stats().pager.resident_bytes < 4 * stride(1)) std::this_thread::yield();
  EXPECT_EQ(pager->shrink(kPlenty), 0U);
  expect_contents(*fetch(*pager, {{1, 3}}));
  EXPECT_EQ(pager->stats().pager.levels[1].misses, 0U);
}

TEST_F(BlockingPagerTest, ALeaseKeepsItsPagerAndEndsInFlight) {
  auto pager = open_gated(kPlenty);
  auto lease = fetch(*pager, {{0, 0}, {1, 1}});
  pager.reset();
  lease.reset();  // the last one closes the pager, whose reads have completed unseen
}

TEST_F(BlockingPagerTest, ReplacingIsRefusedWhileSomebodyHoldsTheLease) {
  const auto pager = open(stride(1) + stride(2));
  auto lease = fetch(*pager, {{1, 0}, {2, 1}});
  ASSERT_TRUE(lease->wait());
  const std::int64_t handle = lease->handle();
  const std::vector<Node> next = {{1, 3}, {2, 14}};
  {
    const auto program = *find_source(handle);  // as a program that runs does
    EXPECT_EQ(pager->fetch(next, lease).error().code, ErrorCode::kBusy);
    expect_contents(*lease);
  }
  const auto replaced = pager->fetch(next, lease);
  ASSERT_TRUE(replaced) << replaced.error().message;
  EXPECT_EQ(lease->wait().error().code, ErrorCode::kCancelled);
  EXPECT_NE(lease->fetch_ns(), std::nullopt);  // its figures stay
  EXPECT_EQ(find_source(handle).error().code, ErrorCode::kStaleHandle);
  expect_contents(**replaced);
  EXPECT_EQ(pager->fetch(next, lease).error().code, ErrorCode::kCancelled);
}

TEST_F(BlockingPagerTest, AProgramComputesWithWhatItsHandleNames) {
  const auto pager = open(kPlenty, StorageKind::kMapped);
  const auto lease = fetch(*pager, {{0, 0}, {2, 9}});
  EXPECT_EQ(lease->layers(), kLayers);
  EXPECT_EQ(lease->d_model(), kWidth);
  const auto source = *find_source(lease->handle());
  std::vector<MemoryRows> rows;
  ASSERT_TRUE(source->layer(2, rows));
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].rows, 24U);
  EXPECT_EQ(rows[1].rows, 8U);
  const auto blocks = *lease->blocks();
  EXPECT_EQ(rows[1].data, blocks[1].data + blocks[1].spec->layer_offset(2));
  EXPECT_EQ(source->layer(kLayers, rows).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(BlockingPagerTest, MemoryOfOtherKindsIsNotReadAsFfn) {
  BankLevelSpec spec = *ffn_level_spec(0, 4, DType::kF32, kWidth, 2, {0}, 1);
  spec.kind = "kv";
  spec.tensors = {{"keys", 2, kWidth}, {"values", 2, kWidth}};
  const std::string path = dir_.file("kv");
  auto writer = *BankLevelWriter::create(path, spec);
  ASSERT_TRUE(writer.append(0, std::vector<float>(std::size_t{4} * kWidth, 1.0F)));
  ASSERT_TRUE(writer.finish());
  const auto pager = *BlockingPager::open({{path}}, StorageKind::kDirect, PagerOptions{.budget = kPlenty});
  const auto lease = fetch(*pager, {{0, 0}});
  std::vector<MemoryRows> rows;
  EXPECT_TRUE(lease->wait());
  EXPECT_EQ(lease->layer(0, rows).error().code, ErrorCode::kUnsupported);
}

TEST_F(BlockingPagerTest, DamageIsReadTwiceThenReported) {
  for (const StorageKind kind : {StorageKind::kDirect, StorageKind::kMapped}) {
    const std::string copy = dir_.file("copy" + std::string(name(kind)));
    std::filesystem::copy_file(paths_[1][0], copy);
    testing::flip_bit(copy, banks_[1].block_offset(2) + banks_[1].spec().layer_offset(1) + 5);
    const auto pager = *BlockingPager::open({{copy}}, kind, PagerOptions{.budget = kPlenty});
    const auto lease = fetch(*pager, {{1, 2}});
    const Status status = lease->wait();
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kChecksum);
    for (const std::string& part : {copy, std::string("layer 1"), std::string("node 2"), std::string("row 2")}) {
      EXPECT_NE(status.error().message.find(part), std::string::npos) << status.error().message;
    }
    EXPECT_EQ(pager->stats().pager.rereads, 1U);
    EXPECT_TRUE(fetch(*pager, {{1, 1}})->wait());
  }
}

// A file whose checksums are right and whose scales are not: made to be hostile, not damaged.
TEST_F(BlockingPagerTest, ScalesThatAreNoScalesAreRefused) {
  const std::vector<std::pair<DType, std::vector<std::byte>>> attacks = {
      {DType::kI8, {std::byte{0}, std::byte{0}, std::byte{0xC0}, std::byte{0x7F}}},  // NaN
      {DType::kI8, {std::byte{0}, std::byte{0}, std::byte{0x80}, std::byte{0xBF}}},  // -1
      {DType::kI4, {std::byte{0}, std::byte{0x7C}}},                                 // infinity
      {DType::kI4, {std::byte{0}, std::byte{0xBC}}},                                 // -1
  };
  for (const auto& [dtype, scale] : attacks) {
    const std::string path = dir_.file("hostile");
    write_level(path, {.level = 0, .dtype = dtype});
    const auto bank = *BankLevel::open(path);
    const BankLevelSpec& spec = bank.spec();
    auto bytes = testing::read_file(path);
    const auto block = std::span(bytes).subspan(bank.block_offset(0), spec.stride());
    std::copy(scale.begin(), scale.end(),
              block.begin() + static_cast<std::ptrdiff_t>(spec.scale_offset(2) - scale.size()));
    const std::uint64_t checksum = layer_checksum(spec, block, 1);
    std::memcpy(bytes.data() + bank.block_offset(1) + sizeof(checksum), &checksum, sizeof(checksum));
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    const auto pager = *BlockingPager::open({{path}}, StorageKind::kDirect, PagerOptions{.budget = kPlenty});
    const auto lease = fetch(*pager, {{0, 0}});
    const Status status = lease->wait(1);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kBadFormat) << status.error().message;
    EXPECT_NE(status.error().message.find(path), std::string::npos);
  }
}

}  // namespace
}  // namespace edge
