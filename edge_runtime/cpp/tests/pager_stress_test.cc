// Eight threads do everything at once to one pager, and compare every lease with the file. EDGE_STRESS_SECONDS sets for
// how long each test runs; under the sanitizers a minute is worth waiting for.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bank_fixture.h"
#include "edge_runtime/blocking_pager.h"
#include "edge_runtime/storage_faulty.h"

namespace edge {
namespace {

using testing::kLayers;

constexpr int kThreads = 8;
constexpr std::uint32_t kLevels = 3;

std::chrono::milliseconds duration() {
  const char* const seconds = std::getenv("EDGE_STRESS_SECONDS");
  return std::chrono::milliseconds(seconds != nullptr ? std::lround(1000 * std::strtod(seconds, nullptr)) : 2000);
}

class PagerStress : public ::testing::Test {
 protected:
  void SetUp() override {
    for (std::uint32_t level = 0; level < kLevels; ++level) {
      const std::string path = dir_.file("level" + std::to_string(level));
      testing::write_level(path, {.level = level, .dtype = DType::kI8, .rows_per_block = 96 - 32 * level});
      banks_.push_back(*BankLevel::open(path));
      bytes_.push_back(testing::read_file(path));
    }
  }

  const std::string& path() const { return banks_[0].path(); }

  void open(StorageKind kind, bool faulty) {
    std::uint64_t path_bytes = 0;
    for (const BankLevel& bank : banks_) path_bytes += bank.spec().stride();
    budget_ = 5 * path_bytes;  // for eight threads: some have to be refused, and all evict
    const auto device = make_device({.memory = make_block_memory(budget_)});
    std::vector<PagedLevel> levels;
    for (std::uint32_t level = 0; level < kLevels; ++level) {
      auto storage = *open_storage(banks_[level].path(), kind, device);
      if (faulty) {
        auto wrapped = std::make_unique<FaultyStorage>(std::move(storage), std::vector<Fault>{});
        faulty_.push_back(wrapped.get());
        storage = std::move(wrapped);
      }
      levels.emplace_back();
      levels.back().push_back({banks_[level], std::move(storage)});
    }
    pager_ = *BlockingPager::open(std::move(levels),
                                  PagerOptions{.budget = budget_, .pinned = {{1, 1}}, .chunk_bytes = kPage});
  }

  void run() {
    const auto end = std::chrono::steady_clock::now() + duration();
    std::vector<std::thread> threads;
    for (std::uint32_t number = 0; number < kThreads; ++number) {
      threads.emplace_back([this, number, end] {
        std::mt19937 random(number);
        std::shared_ptr<Lease> kept;
        while (std::chrono::steady_clock::now() < end && !::testing::Test::HasFailure()) act(random, number, kept);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (Shared& shared : shared_) shared.lease.reset();
    const PagerStats stats = pager_->stats().pager;
    EXPECT_EQ(stats.leases, 0U);
    EXPECT_EQ(stats.leased_bytes, 0U);
    EXPECT_LE(stats.peak_bytes, budget_);
    EXPECT_GT(stats.evictions, 0U);
    EXPECT_GT(served_, 0U);
    EXPECT_GT(refused_ + cancelled_, 0U);
    std::cout << served_ << " leases compared, " << refused_ << " refused, " << cancelled_ << " cancelled, " << failed_
              << " failed; " << stats.evictions << " evictions, " << stats.rereads << " layers read again, "
              << stats.prefetch_hits << " of " << stats.prefetches << " hints fetched\n";
  }

  std::uint64_t failed() const { return failed_; }

 private:
  // Where threads find leases of others to cancel.
  struct Shared {
    std::mutex mutex;
    std::shared_ptr<Lease> lease;
  };

  static std::vector<Node> some_path(std::mt19937& random) {
    const std::uint64_t leaf = random() % 16;
    return {{0, 0}, {1, leaf / 4}, {2, leaf}};
  }

  void act(std::mt19937& random, std::uint32_t number, std::shared_ptr<Lease>& kept) {
    switch (random() % 12) {
      case 0:
        pager_->shrink(random() % budget_);
        return;
      case 1:
      case 2:
        EXPECT_TRUE(pager_->prefetch(some_path(random)));
        return;
      case 3:
        cancel_one(shared_[random() % kThreads]);
        return;
      case 4: {
        const PagerStats stats = pager_->stats().pager;
        EXPECT_LE(stats.resident_bytes + stats.in_flight_bytes, budget_);
        EXPECT_LE(stats.leased_bytes, budget_);
        return;
      }
      case 5:
        kept.reset();
        return;
      case 6:
        if (!faulty_.empty()) add_fault(random);
        return;
      default:
        fetch(random, shared_[number], kept);
    }
  }

  static void cancel_one(Shared& shared) {
    std::shared_ptr<Lease> lease;
    {
      const std::scoped_lock lock(shared.mutex);
      lease = shared.lease;
    }
    if (lease != nullptr) lease->cancel();
  }

  void add_fault(std::mt19937& random) {
    FaultyStorage& storage = *faulty_[random() % kLevels];
    storage.add({random() % storage.file_bytes(), static_cast<FaultKind>(random() % 3),
                 static_cast<unsigned>(1 + random() % 2)});
  }

  void fetch(std::mt19937& random, Shared& shared, std::shared_ptr<Lease>& kept) {
    const bool replace = kept != nullptr && random() % 2 == 0;
    const std::vector<Node> path = some_path(random);
    auto fetched = replace ? pager_->fetch(path, kept) : pager_->fetch(path);
    if (!fetched) {
      const ErrorCode code = fetched.error().code;
      EXPECT_TRUE(code == ErrorCode::kBusy || (replace && code == ErrorCode::kCancelled)) << fetched.error().message;
      if (code == ErrorCode::kCancelled) kept.reset();
      ++refused_;
      return;
    }
    const std::shared_ptr<Lease> lease = std::move(*fetched);
    if (replace) kept.reset();
    {
      const std::scoped_lock lock(shared.mutex);
      shared.lease = lease;
    }
    if (random() % 8 != 0) wait_and_compare(random, *lease);  // else given up in flight
    {
      const std::scoped_lock lock(shared.mutex);
      shared.lease.reset();
    }
    if (random() % 2 == 0) kept = lease;
  }

  void wait_and_compare(std::mt19937& random, Lease& lease) {
    for (std::uint64_t layer = 0; layer < kLayers && random() % 2 == 0; ++layer) {
      if (!count(lease.wait(layer))) return;
    }
    const auto blocks = lease.blocks();
    if (!blocks) {
      count(tl::make_unexpected(blocks.error()));
      return;
    }
    for (const LeasedBlock& block : *blocks) {
      const BankLevel& bank = banks_[block.node.level];
      const auto row = static_cast<std::uint64_t>(bank.row_of(block.node.index));
      const std::byte* const want = bytes_[block.node.level].data() + bank.block_offset(row);
      EXPECT_EQ(std::memcmp(block.data, want, bank.spec().layer_offset(kLayers)), 0)
          << "level " << block.node.level << ", node " << block.node.index;
    }
    ++served_;
  }

  // Whether it went well; nothing but what was asked for may go wrong.
  bool count(const Status& status) {
    if (status) return true;
    if (status.error().code == ErrorCode::kCancelled) {
      ++cancelled_;
    } else {
      EXPECT_FALSE(faulty_.empty()) << status.error().message;
      ++failed_;
    }
    return false;
  }

  testing::TempDir dir_;
  std::vector<BankLevel> banks_;
  std::vector<std::vector<std::byte>> bytes_;
  std::vector<FaultyStorage*> faulty_;
  std::uint64_t budget_ = 0;
  std::shared_ptr<BlockingPager> pager_;
  Shared shared_[kThreads];
  std::atomic<std::uint64_t> served_ = 0;
  std::atomic<std::uint64_t> refused_ = 0;
  std::atomic<std::uint64_t> cancelled_ = 0;
  std::atomic<std::uint64_t> failed_ = 0;
};

TEST_F(PagerStress, DirectReads) {
  open(StorageKind::kDirect, false);
  run();
  EXPECT_EQ(failed(), 0U);
}

TEST_F(PagerStress, RingReads) {
  const auto storage = open_storage(path(), StorageKind::kUring, make_device());
  if (!storage) GTEST_SKIP() << storage.error().message;
  open(StorageKind::kUring, false);
  run();
  EXPECT_EQ(failed(), 0U);
}

TEST_F(PagerStress, MappedReads) {
  open(StorageKind::kMapped, false);
  run();
  EXPECT_EQ(failed(), 0U);
}

TEST_F(PagerStress, FaultyReads) {
  open(StorageKind::kDirect, true);
  run();
  EXPECT_GT(failed(), 0U);
}

}  // namespace
}  // namespace edge
