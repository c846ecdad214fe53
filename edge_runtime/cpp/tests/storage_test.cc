// Every storage reads the file's bytes, and says what is wrong where it cannot.
#include "edge_runtime/storage.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bank_fixture.h"
#include "storage_fixture.h"

namespace edge {
namespace {

using testing::kFileBytes;
using testing::kPages;
using testing::random_bytes;
using testing::Reader;
using testing::TempDir;
using testing::write_bytes;

class StorageOfKind : public ::testing::TestWithParam<StorageKind> {
 protected:
  void SetUp() override {
    write_bytes(path_, bytes_);
    const auto storage = open_storage(path_, GetParam(), device_);
    if (!storage && storage.error().code == ErrorCode::kUnsupported) GTEST_SKIP() << storage.error().message;
  }
  std::unique_ptr<Storage> open() {
    auto storage = open_storage(path_, GetParam(), device_);
    EXPECT_TRUE(storage) << storage.error().message;
    return std::move(*storage);
  }

  TempDir dir_;
  std::string path_ = dir_.file("file");
  std::vector<std::byte> bytes_ = random_bytes(kFileBytes, 5);
  std::shared_ptr<Device> device_ = make_device({.lanes = 3, .depth = 6});
};
INSTANTIATE_TEST_SUITE_P(All, StorageOfKind,
                         ::testing::Values(StorageKind::kAuto, StorageKind::kDirect, StorageKind::kMapped,
                                           StorageKind::kUring),
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
  const auto absent = open_storage(dir_.file("absent"), GetParam(), device_);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  EXPECT_NE(absent.error().message.find(dir_.file("absent")), std::string::npos);
}

TEST_P(StorageOfKind, SaysHowItReadsAndWhy) {
  const auto storage = open();
  EXPECT_EQ(storage->report().path, path_);
  const std::string& backend = storage->report().backend;
  const std::string& reason = storage->report().reason;
  const bool buffered = backend == "buffered/pool";  // the file system of this test's directory decides
  switch (GetParam()) {
    case StorageKind::kMapped:
      EXPECT_EQ(backend, "mapped");
      break;
    case StorageKind::kDirect:
      EXPECT_TRUE(buffered || backend == "direct/pool") << backend;
      break;
    case StorageKind::kUring:
      EXPECT_EQ(backend, "direct/io_uring");
      break;
    case StorageKind::kAuto:
      EXPECT_EQ(backend, "mapped");  // it has just been written: it lies in the page cache
      EXPECT_NE(reason.find("page cache"), std::string::npos) << reason;
  }
}

TEST_P(StorageOfKind, AFileThatIsDeletedStaysReadable) {
  const auto storage = open();
  Reader reader(*storage);
  std::filesystem::remove(path_);
  const Buffer buffer = *storage->acquire(0, kPages * kPage);
  ASSERT_TRUE(reader.read(0, kPages * kPage, buffer.get()));
  EXPECT_EQ(std::memcmp(buffer.get(), bytes_.data(), kPages * kPage), 0);
}

// A kernel finishes what a thread submitted on that thread, and calls it off when the thread ends.
TEST_P(StorageOfKind, ReadsOutliveTheThreadThatSubmittedThem) {
  const auto storage = open();
  Reader reader(*storage);
  const Buffer buffer = *storage->acquire(0, kPages * kPage);
  std::thread([&] {
    for (std::uint64_t page = 0; page < kPages; ++page) {
      storage->submit(
          {.offset = page * kPage, .length = kPage, .destination = buffer.get() + page * kPage, .tag = page});
    }
  }).join();
  for (const auto& [tag, status] : reader.completions(kPages)) EXPECT_TRUE(status) << status.error().message;
  EXPECT_EQ(std::memcmp(buffer.get(), bytes_.data(), kPages * kPage), 0);
}

TEST_P(StorageOfKind, FilesOfOneDeviceAreReadSideBySide) {
  const auto other_bytes = random_bytes(kFileBytes, 9);
  write_bytes(dir_.file("other"), other_bytes);
  const auto other = *open_storage(dir_.file("other"), GetParam(), device_);
  const auto storage = open();
  Reader reader(*storage);
  Reader other_reader(*other);
  const Buffer buffer = *storage->acquire(0, kPages * kPage);
  const Buffer other_buffer = *other->acquire(0, kPages * kPage);
  for (std::uint64_t page = 0; page < kPages; ++page) {
    const std::uint64_t at = page * kPage;
    storage->submit({.offset = at, .length = kPage, .destination = buffer.get() + at, .tag = page});
    other->submit({.offset = at, .length = kPage, .destination = other_buffer.get() + at, .tag = page});
  }
  EXPECT_EQ(reader.completions(kPages).size(), kPages);
  EXPECT_EQ(other_reader.completions(kPages).size(), kPages);
  EXPECT_EQ(std::memcmp(buffer.get(), bytes_.data(), kPages * kPage), 0);
  EXPECT_EQ(std::memcmp(other_buffer.get(), other_bytes.data(), kPages * kPage), 0);
}

#ifdef __linux__
TEST_P(StorageOfKind, ColdFilesAreReadDirectlyWhereThatWorks) {
  testing::make_cold(path_);
  const auto direct = *open_direct(path_, device_);
  const auto storage = open();
  // Where direct reads do not work, or the file lies in memory anyway, mapping spares the copy.
  if (GetParam() == StorageKind::kAuto && storage->report().reason.find("only") != std::string::npos) {
    const bool works = direct->report().backend != "buffered/pool";
    EXPECT_EQ(storage->report().backend, works ? direct->report().backend : "mapped");
  }
  Reader reader(*storage);
  const Buffer buffer = *storage->acquire(0, kPages * kPage);
  ASSERT_TRUE(reader.read(0, kPages * kPage, buffer.get()));
  EXPECT_EQ(std::memcmp(buffer.get(), bytes_.data(), kPages * kPage), 0);
}
#endif

TEST(StorageKindNames, RoundTrip) {
  for (const StorageKind kind : {StorageKind::kAuto, StorageKind::kDirect, StorageKind::kMapped, StorageKind::kUring}) {
    EXPECT_EQ(parse_storage_kind(name(kind)), kind);
  }
  EXPECT_EQ(parse_storage_kind("ram"), std::nullopt);
}

TEST(OpenDirect, TakesDirectKindsOnly) {
  const TempDir dir;
  write_bytes(dir.file("file"), random_bytes(kPage, 1));
  EXPECT_EQ(open_direct(dir.file("file"), make_device(), "a test", StorageKind::kMapped).error().code,
            ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace edge
