// Whether reads past the page cache work is found out, not believed.
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "../src/direct_probe.h"
#include "bank_fixture.h"
#include "storage_fixture.h"

namespace edge {
namespace {

using testing::kFileBytes;
using testing::make_cold;
using testing::random_bytes;
using testing::TempDir;
using testing::write_bytes;

#ifdef __linux__

class ProbeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_bytes(path_, random_bytes(kFileBytes, 5));
    make_cold(path_);
    buffered_ = FileDescriptor(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::fstat(buffered_.get(), &info_), 0);
    if (cached_percent(path_).value_or(100) > 0) GTEST_SKIP() << "the page cache keeps the file";
  }

  TempDir dir_;
  std::string path_ = dir_.file("file");
  FileDescriptor buffered_;
  struct stat info_{};
};

TEST_F(ProbeTest, ReadsThatComeIntoThePageCacheAreSeen) {
  // What a file system that drops O_DIRECT silently makes of it.
  const FileDescriptor dropped(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(fills_page_cache(dropped.get(), buffered_.get(), path_, info_), true);
}

TEST_F(ProbeTest, ReadsThatDoNotAreSeen) {
  const FileDescriptor direct(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  if (!direct.valid()) GTEST_SKIP() << "the file system refuses O_DIRECT";
  EXPECT_EQ(fills_page_cache(direct.get(), buffered_.get(), path_, info_), false);
}

TEST_F(ProbeTest, AFileThatTheCacheCannotLetGoTellsNothing) {
  write_bytes(path_, random_bytes(kFileBytes, 6));  // not on the device yet
  const FileDescriptor direct(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  const auto fills = fills_page_cache(direct.get(), buffered_.get(), path_, info_);
  if (cached_percent(path_) == 100U) {
    EXPECT_EQ(fills, std::nullopt);
  }
}

TEST_F(ProbeTest, TheShareInThePageCacheIsSeen) {
  EXPECT_EQ(cached_percent(path_), 0U);
  (void)testing::read_file(path_);
  EXPECT_EQ(cached_percent(path_), 100U);
}

TEST(MemoryFileSystem, IsMappedBecauseThereIsNoDevice) {
  const std::string directory = "/dev/shm";
  if (!std::filesystem::is_directory(directory)) GTEST_SKIP() << "no /dev/shm";
  const std::string path = directory + "/edge-storage-test-" + std::to_string(::getpid());
  write_bytes(path, random_bytes(kFileBytes, 5));
  const auto direct = *open_direct(path, make_device());
  const auto uring = open_storage(path, StorageKind::kUring, make_device());
  const auto automatic = *open_storage(path, StorageKind::kAuto, make_device());
  std::filesystem::remove(path);
  EXPECT_EQ(direct->report().backend, "buffered/pool");
  EXPECT_NE(direct->report().reason.find("memory"), std::string::npos) << direct->report().reason;
  ASSERT_FALSE(uring);
  EXPECT_EQ(uring.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(uring.error().message.find(path), std::string::npos);
  EXPECT_EQ(automatic->report().backend, "mapped");
}

#endif

}  // namespace
}  // namespace edge
