// Every storage reads the file's bytes, and says what is wrong where it cannot.
#include "edge_runtime/storage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "bank_fixture.h"
#include "edge_runtime/storage_faulty.h"
#include "edge_runtime/storage_simulated.h"

namespace edge {
namespace {

using testing::read_file;
using testing::TempDir;

constexpr std::uint64_t kPages = 40;
constexpr std::uint64_t kFileBytes = kPages * kPage + 100;  // the tables behind the blocks end anywhere

std::vector<std::byte> random_bytes(std::uint64_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

void write_bytes(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// Polls until `count` requests have completed, woken by the storage.
class Reader {
 public:
  explicit Reader(Storage& storage) : storage_(storage) {
    storage.set_waker([this] {
      const std::scoped_lock lock(mutex_);
      woken_ = true;
      wake_.notify_one();
    });
  }

  std::map<std::uint64_t, Status> completions(std::size_t count) {
    std::map<std::uint64_t, Status> all;
    std::vector<Completion> some;
    while (all.size() < count) {
      std::unique_lock lock(mutex_);
      if (!wake_.wait_for(lock, std::chrono::seconds(30), [this] { return woken_; })) {
        ADD_FAILURE() << "the storage did not wake its reader";
        return all;
      }
      woken_ = false;
      lock.unlock();
      some.clear();
      storage_.poll(some);
      for (const Completion& completion : some) {
        EXPECT_TRUE(all.emplace(completion.tag, completion.status).second) << "twice: " << completion.tag;
      }
    }
    return all;
  }

  // Reads [offset, offset + length) into the buffer of the whole file.
  Status read(std::uint64_t offset, std::uint64_t length, std::byte* file, bool again = false) {
    storage_.submit({.offset = offset, .length = length, .destination = file + offset, .tag = 7, .again = again});
    return completions(1)[7];
  }

 private:
  Storage& storage_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false;
};

class StorageOfKind : public ::testing::TestWithParam<StorageKind> {
 protected:
  void SetUp() override { write_bytes(path_, bytes_); }
  std::unique_ptr<Storage> open() {
    auto storage = open_storage(path_, GetParam(), pool_);
    EXPECT_TRUE(storage) << storage.error().message;
    return std::move(*storage);
  }

  TempDir dir_;
  std::string path_ = dir_.file("file");
  std::vector<std::byte> bytes_ = random_bytes(kFileBytes, 5);
  std::shared_ptr<ReadPool> pool_ = make_read_pool(3);
};
INSTANTIATE_TEST_SUITE_P(All, StorageOfKind,
                         ::testing::Values(StorageKind::kAuto, StorageKind::kDirect, StorageKind::kMapped),
                         [](const auto& instance) { return std::string(name(instance.param)); });

TEST_P(StorageOfKind, BringsTheBytesOfManyRequestsAtOnce) {
  const auto storage = open();
  EXPECT_EQ(storage->file_bytes(), kFileBytes);
  EXPECT_EQ(storage->depth(), 6U);
  Reader reader(*storage);
  std::vector<Buffer> buffers;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  std::mt19937 random(1);
  for (std::uint64_t tag = 0; tag < 50; ++tag) {
    const std::uint64_t begin = random() % kPages;
    const std::uint64_t pages = 1 + random() % std::min<std::uint64_t>(kPages - begin, 8);
    ranges.emplace_back(begin * kPage, pages * kPage);
    auto buffer = storage->acquire(begin * kPage, pages * kPage);
    ASSERT_TRUE(buffer) << buffer.error().message;
    buffers.push_back(std::move(*buffer));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffers.back().get()) % static_cast<std::uintptr_t>(getpagesize()), 0U);
    storage->submit(
        {.offset = ranges[tag].first, .length = ranges[tag].second, .destination = buffers[tag].get(), .tag = tag});
  }
  for (const auto& [tag, status] : reader.completions(50)) {
    ASSERT_TRUE(status) << status.error().message;
    EXPECT_EQ(std::memcmp(buffers[tag].get(), bytes_.data() + ranges[tag].first, ranges[tag].second), 0) << tag;
  }
}

TEST_P(StorageOfKind, ReadsRangesThatAreNotAligned) {
  const auto storage = open();
  Reader reader(*storage);
  const Buffer buffer = *storage->acquire(0, kPages * kPage);
  for (const auto& [offset, length] : {std::pair(1, 1), std::pair(100, 3000), std::pair(16383, 2)}) {
    for (const bool again : {false, true}) {
      ASSERT_TRUE(reader.read(offset, length, buffer.get(), again));
      EXPECT_EQ(std::memcmp(buffer.get() + offset, bytes_.data() + offset, length), 0) << offset;
    }
  }
}

TEST_P(StorageOfKind, AFileThatShrinksIsTruncatedNotACrash) {
  for (const std::uint64_t size : {10 * kPage, 10 * kPage + 100, 10 * kPage + 4096, std::uint64_t{0}}) {
    write_bytes(path_, bytes_);
    const auto storage = open();
    Reader reader(*storage);
    const Buffer buffer = *storage->acquire(0, kPages * kPage);
    std::filesystem::resize_file(path_, size);
    const Status status = reader.read(8 * kPage, 8 * kPage, buffer.get());
    ASSERT_FALSE(status) << size;
    EXPECT_EQ(status.error().code, ErrorCode::kTruncated) << size << " " << status.error().message;
    EXPECT_NE(status.error().message.find(path_), std::string::npos);
  }
}

TEST_P(StorageOfKind, AFileThatIsReplacedStaysReadable) {
  const auto storage = open();
  Reader reader(*storage);
  write_bytes(dir_.file("other"), random_bytes(kFileBytes, 6));
  std::filesystem::rename(dir_.file("other"), path_);
  const Buffer buffer = *storage->acquire(0, kPages * kPage);
  ASSERT_TRUE(reader.read(0, kPages * kPage, buffer.get()));
  EXPECT_EQ(std::memcmp(buffer.get(), bytes_.data(), kPages * kPage), 0);
}

TEST_P(StorageOfKind, DrainForgetsWhatIsUnderWay) {
  const auto storage = open();
  const Buffer buffer = *storage->acquire(0, kPages * kPage);
  for (std::uint64_t page = 0; page < kPages; ++page) {
    storage->submit({.offset = page * kPage, .length = kPage, .destination = buffer.get() + page * kPage, .tag = page});
  }
  storage->drain();
  std::vector<Completion> completions;
  storage->poll(completions);
  EXPECT_TRUE(completions.empty());
}

TEST_P(StorageOfKind, RefusesFilesThatAreNotThere) {
  const auto absent = open_storage(dir_.file("absent"), GetParam(), pool_);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  EXPECT_NE(absent.error().message.find(dir_.file("absent")), std::string::npos);
}

TEST_P(StorageOfKind, SaysHowItReadsAndWhy) {
  const auto storage = open();
  EXPECT_EQ(storage->report().path, path_);
  const std::string& backend = storage->report().backend;
  switch (GetParam()) {
    case StorageKind::kMapped:
      EXPECT_EQ(backend, "mapped");
      break;
    case StorageKind::kDirect:
      EXPECT_TRUE(backend == "direct" || backend == "buffered") << backend;
      break;
    case StorageKind::kAuto:
      EXPECT_EQ(backend, "mapped");  // it has just been written: it lies in the page cache
      EXPECT_NE(storage->report().reason.find("page cache"), std::string::npos) << storage->report().reason;
  }
}

#ifdef __linux__
TEST_P(StorageOfKind, ColdFilesAreReadDirectlyWhereThatWorks) {
  const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::fsync(fd), 0);
  ASSERT_EQ(::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  ::close(fd);
  const auto direct = *open_direct(path_, pool_);
  const auto storage = open();
  // Where direct reads are refused, or the file lies in memory anyway, mapping spares the copy.
  if (GetParam() == StorageKind::kAuto && storage->report().reason.find("only") != std::string::npos) {
    EXPECT_EQ(storage->report().backend, direct->report().backend == "direct" ? "direct" : "mapped");
  }
  Reader reader(*storage);
  const Buffer buffer = *storage->acquire(0, kPages * kPage);
  ASSERT_TRUE(reader.read(0, kPages * kPage, buffer.get()));
  EXPECT_EQ(std::memcmp(buffer.get(), bytes_.data(), kPages * kPage), 0);
}
#endif

TEST(StorageKindNames, RoundTrip) {
  for (const StorageKind kind : {StorageKind::kAuto, StorageKind::kDirect, StorageKind::kMapped}) {
    EXPECT_EQ(parse_storage_kind(name(kind)), kind);
  }
  EXPECT_EQ(parse_storage_kind("ram"), std::nullopt);
}

TEST(FaultyStorage, StrikesReadsThatCoverTheByteAsOftenAsTold) {
  const TempDir dir;
  const auto bytes = random_bytes(4 * kPage, 2);
  write_bytes(dir.file("file"), bytes);
  FaultyStorage storage(*open_direct(dir.file("file"), make_read_pool(2)),
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

TEST(SimulatedStorage, RequestsWaitOutLatencyTogetherAndShareTheBandwidth) {
  ManualClock clock;
  // A byte a nanosecond; two requests at once.
  const auto device = std::make_shared<SimulatedDevice>(
      clock, SimulatedDevice::Profile{.latency_ns = 1000, .bytes_per_second = 1e9, .lanes = 2});
  SimulatedStorage storage("file", random_bytes(3 * kPage, 1), device);
  const Buffer buffer = *storage.acquire(0, 3 * kPage);
  for (std::uint64_t page = 0; page < 3; ++page) {
    storage.submit({.offset = page * kPage, .length = kPage, .destination = buffer.get() + page * kPage, .tag = page});
  }
  const auto transfer = static_cast<std::int64_t>(kPage);
  // The third has the first's lane: it waits out its latency while the second is transferred, or beyond that.
  const std::int64_t third = std::max(1000 + 2 * transfer, 1000 + transfer + 1000) + transfer;
  std::vector<Completion> completions;
  for (const std::int64_t due : {1000 + transfer, 1000 + 2 * transfer, third}) {
    const std::size_t before = completions.size();
    EXPECT_EQ(storage.next_completion_ns(), due);
    clock.advance(due - clock.now_ns() - 1);
    storage.poll(completions);
    EXPECT_EQ(completions.size(), before);
    clock.advance(1);
    storage.poll(completions);
    EXPECT_EQ(completions.size(), before + 1);
  }
  EXPECT_EQ(storage.next_completion_ns(), std::nullopt);
}

TEST(SimulatedStorage, AReadBeyondTheFileIsTruncated) {
  ManualClock clock;
  const auto device = std::make_shared<SimulatedDevice>(clock, SimulatedDevice::Profile{});
  SimulatedStorage storage("file", random_bytes(100, 1), device);
  const Buffer buffer = *storage.acquire(0, kPage);
  storage.submit({.offset = 0, .length = kPage, .destination = buffer.get(), .tag = 3});
  clock.advance(*storage.next_completion_ns());
  std::vector<Completion> completions;
  storage.poll(completions);
  ASSERT_EQ(completions.size(), 1U);
  EXPECT_EQ(completions[0].status.error().code, ErrorCode::kTruncated);
}

}  // namespace
}  // namespace edge
