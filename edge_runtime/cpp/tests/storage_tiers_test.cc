// Each level is read in its own way; a file that changes under its reader gives an error or what was opened.
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "bank_fixture.h"
#include "edge_runtime/blocking_pager.h"
#include "edge_runtime/tiers.h"
#include "storage_fixture.h"

namespace edge {
namespace {

using testing::TempDir;

class TiersTest : public ::testing::TestWithParam<StorageKind> {
 protected:
  void SetUp() override {
    for (std::uint32_t level = 0; level < 3; ++level) {
      paths_.push_back({dir_.file("level" + std::to_string(level))});
      testing::write_level(paths_[level][0], {.level = level});
      bytes_.push_back(testing::read_file(paths_[level][0]));
    }
  }
  std::shared_ptr<BlockingPager> open(const Tiers& tiers) {
    return *BlockingPager::open(paths_, tiers, PagerOptions{.budget = 1U << 22U, .chunk_bytes = kPage});
  }
  void expect_contents(BlockingPager& pager, const std::vector<Node>& nodes) {
    const auto lease = *pager.fetch(nodes);
    const auto blocks = lease->blocks();
    ASSERT_TRUE(blocks) << blocks.error().message;
    for (const LeasedBlock& block : *blocks) {
      const std::uint64_t offset = bank(block.node.level).block_offset(block.node.index);
      EXPECT_EQ(std::memcmp(block.data, bytes_[block.node.level].data() + offset, block.spec->stride()), 0);
    }
  }
  // Those of the files as they were written: rows lie in the order of their nodes.
  BankLevel bank(std::uint32_t level) { return *BankLevel::open(paths_[level][0]); }

  TempDir dir_;
  std::vector<std::vector<std::string>> paths_;
  std::vector<std::vector<std::byte>> bytes_;
};
INSTANTIATE_TEST_SUITE_P(All, TiersTest, ::testing::Values(StorageKind::kDirect, StorageKind::kMapped),
                         [](const auto& instance) { return std::string(name(instance.param)); });

TEST_P(TiersTest, EachLevelIsReadInItsOwnWay) {
  Tiers tiers(GetParam());
  tiers.levels[1] = {.kind = StorageKind::kMapped};
  tiers.levels[2] = {.kind = StorageKind::kDirect,
                     .throttle = std::make_shared<ThrottledDevice>(
                         SimulatedDevice::Profile{.latency_ns = 1000, .bytes_per_second = 1e9, .lanes = 1})};
  const auto pager = open(tiers);
  expect_contents(*pager, {{0, 0}, {1, 2}, {2, 9}});
  const auto reports = pager->storage_reports();
  ASSERT_EQ(reports.size(), 3U);
  EXPECT_EQ(reports[0].backend, open_storage(paths_[0][0], GetParam(), make_device()).value()->report().backend);
  EXPECT_EQ(reports[1].backend, "mapped");
  EXPECT_EQ(reports[2].backend.find("pool"), reports[2].backend.size() - 4) << reports[2].backend;
  EXPECT_NE(reports[2].reason.find("throttled"), std::string::npos);
}

TEST_P(TiersTest, ATierForALevelThatIsNotThereIsRefused) {
  Tiers tiers(GetParam());
  tiers.levels[3] = {};
  const auto pager = BlockingPager::open(paths_, tiers, PagerOptions{.budget = 1U << 22U});
  ASSERT_FALSE(pager);
  EXPECT_EQ(pager.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(pager.error().message.find("level 3"), std::string::npos);
}

TEST_P(TiersTest, ATruncatedFileGivesAnErrorBeyondItsEnd) {
  const auto pager = open(GetParam());
  const BankLevelSpec spec = bank(2).spec();
  const std::uint64_t end = bank(2).block_offset(8) + 100;
  expect_contents(*pager, {{2, 3}});
  std::filesystem::resize_file(paths_[2][0], end);
  for (const std::uint64_t node : {std::uint64_t{8}, std::uint64_t{15}}) {
    const Status status = (*pager->fetch(std::vector<Node>{{2, node}}))->wait();
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kTruncated) << status.error().message;
    EXPECT_NE(status.error().message.find(paths_[2][0]), std::string::npos);
  }
}

TEST_P(TiersTest, AFileThatIsReplacedByRenameIsReadAsItWasOpened) {
  const auto pager = open(GetParam());
  expect_contents(*pager, {{1, 0}});
  testing::write_level(dir_.file("other"), {.level = 1, .seed = 77});
  std::filesystem::rename(dir_.file("other"), paths_[1][0]);
  expect_contents(*pager, {{1, 0}, {1, 3}});
  std::filesystem::remove(paths_[2][0]);
  const auto lease = *pager->fetch(std::vector<Node>{{2, 1}});
  EXPECT_TRUE(lease->wait());
}

TEST_P(TiersTest, AFileThatIsOverwrittenGivesAnErrorWhereItDiffers) {
  const auto pager = open(GetParam());
  const std::uint64_t size = bytes_[1].size();
  testing::write_bytes(dir_.file("noise"), testing::random_bytes(size, 3));
  const auto noise = testing::read_file(dir_.file("noise"));
  std::fstream file(paths_[1][0], std::ios::binary | std::ios::in | std::ios::out);
  file.write(reinterpret_cast<const char*>(noise.data()), static_cast<std::streamsize>(size));
  file.close();
  const Status status = (*pager->fetch(std::vector<Node>{{1, 3}}))->wait();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kChecksum) << status.error().message;
  EXPECT_NE(status.error().message.find(paths_[1][0]), std::string::npos);
}

}  // namespace
}  // namespace edge
