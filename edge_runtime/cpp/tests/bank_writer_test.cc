// The writer of level files: what it refuses, what it leaves behind, and copies of blocks.
#include "edge_runtime/bank_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "bank_fixture.h"

namespace edge {
namespace {

using testing::flip_bit;
using testing::read_file;
using testing::TempDir;
using testing::write_level;

BankLevelSpec with_rows(BankLevelSpec spec, std::uint64_t rows) {
  spec.rows = rows;
  return spec;
}

class CopiedBlocks : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override { write_level(source_, {.level = 2, .dtype = GetParam(), .nodes = {9, 3, 14, 0}}); }

  // A level file of copied nodes.
  std::vector<std::byte> copied(const std::string& path, const std::vector<std::uint64_t>& nodes) {
    const auto source = *BankLevel::open(source_);
    auto writer = *BankLevelWriter::create(path, with_rows(source.spec(), nodes.size()));
    for (const std::uint64_t node : nodes) {
      const auto status = writer.copy(node, source);
      EXPECT_TRUE(status) << status.error().message;
    }
    EXPECT_TRUE(writer.finish());
    return read_file(path);
  }

  TempDir dir_;
  std::string source_ = dir_.file("source");
};
INSTANTIATE_TEST_SUITE_P(All, CopiedBlocks,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kI4),
                         [](const auto& instance) { return std::string(name(instance.param)); });

TEST_P(CopiedBlocks, AreTheSameBytes) { EXPECT_EQ(copied(dir_.file("copy"), {9, 3, 14, 0}), read_file(source_)); }

TEST_P(CopiedBlocks, KeepTheirChecksumsInAnyRow) {
  copied(dir_.file("copy"), {14, 9});
  const auto source = *BankLevel::open(source_);
  const auto copy = *BankLevel::open(dir_.file("copy"));
  EXPECT_EQ(copy.row_of(14), 0);
  EXPECT_EQ(copy.row_of(9), 1);
  EXPECT_EQ(copy.row_of(3), -1);
  for (std::uint64_t layer = 0; layer < copy.spec().layers(); ++layer) {
    EXPECT_EQ(copy.checksum(1, layer), source.checksum(0, layer));
  }
}

TEST_P(CopiedBlocks, OfHolesAreZerosWhoseChecksumsHold) {
  const auto spec = with_rows(BankLevel::open(source_)->spec(), 3);
  const std::string path = dir_.file("holes");
  auto writer = *BankLevelWriter::create(path, spec);
  EXPECT_TRUE(writer.append_hole(5));
  EXPECT_FALSE(writer.append_hole(5));
  EXPECT_TRUE(writer.copy(9, *BankLevel::open(source_)));
  EXPECT_TRUE(writer.append_hole(6));
  EXPECT_TRUE(writer.finish());
  const auto holes = *BankLevel::open(path);
  const auto bytes = read_file(path);
  for (const std::uint64_t row : {0, 2}) {
    const auto block = std::span(bytes).subspan(holes.block_offset(row), spec.stride());
    EXPECT_TRUE(std::all_of(block.begin(), block.end(), [](std::byte byte) { return byte == std::byte{0}; }));
  }
  // A copy compares each layer with its checksum.
  auto copy = *BankLevelWriter::create(dir_.file("copy"), spec);
  for (const std::uint64_t node : {5, 9, 6}) {
    const auto status = copy.copy(node, holes);
    EXPECT_TRUE(status) << status.error().message;
  }
}

TEST_P(CopiedBlocks, OfNoNodeMakeAnEmptyLevel) {
  EXPECT_FALSE(copied(dir_.file("copy"), {}).empty());
  EXPECT_EQ(BankLevel::open(dir_.file("copy"))->spec().rows, 0U);
}

TEST_P(CopiedBlocks, AreVerifiedOnTheirWay) {
  const auto source = *BankLevel::open(source_);
  const std::uint64_t at = source.block_offset(1) + source.spec().layer_offset(2) + 5;
  flip_bit(source_, at);
  auto writer = *BankLevelWriter::create(dir_.file("copy"), with_rows(source.spec(), 2));
  const auto damaged = writer.copy(3, source);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, ErrorCode::kChecksum);
  EXPECT_NE(damaged.error().message.find(source_ + ": level 2, node 3, row 1, layer 2"), std::string::npos);
  // The refused block leaves no trace.
  EXPECT_TRUE(writer.copy(9, source));
  EXPECT_TRUE(writer.copy(0, source));
  EXPECT_TRUE(writer.finish());
  EXPECT_EQ(read_file(dir_.file("copy")), copied(dir_.file("other"), {9, 0}));
}

TEST_P(CopiedBlocks, AreRefusedWhereTheyDoNotBelong) {
  const auto source = *BankLevel::open(source_);
  auto writer = *BankLevelWriter::create(dir_.file("copy"), with_rows(source.spec(), 2));
  EXPECT_EQ(writer.copy(1, source).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(writer.copy(16, source).error().code, ErrorCode::kInvalidArgument);
  for (const testing::LevelShape& shape : {testing::LevelShape{.level = 2, .dtype = GetParam(), .rows_per_block = 8},
                                           {.level = 1, .dtype = GetParam()},
                                           {.level = 2, .dtype = GetParam(), .d_model = 32}}) {
    write_level(dir_.file("other"), shape);
    EXPECT_EQ(writer.copy(0, *BankLevel::open(dir_.file("other"))).error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_TRUE(writer.copy(9, source));
  EXPECT_EQ(writer.copy(9, source).error().code, ErrorCode::kInvalidArgument);
  std::filesystem::resize_file(source_, source.block_offset(1));
  EXPECT_EQ(writer.copy(3, source).error().code, ErrorCode::kTruncated);
  std::filesystem::remove(source_);
  EXPECT_EQ(writer.copy(3, source).error().code, ErrorCode::kNotFound);
}

TEST(BankLevelWriter, WritesOtherKindsOfMemoryThanFfn) {
  const TempDir dir;
  const auto spec = *level_spec("kv", {{"keys", 2, 48}, {"values", 2, 48}}, 1, 4, DType::kF32, 32, 2, {0}, 1);
  auto writer = *BankLevelWriter::create(dir.file("level1"), spec);
  const std::vector<float> block(2UL * 2 * 48, 0.5F);
  EXPECT_TRUE(writer.append(1, block));
  EXPECT_TRUE(writer.finish());
  const auto level = BankLevel::open(dir.file("level1"));
  ASSERT_TRUE(level);
  EXPECT_EQ(level->spec().kind, "kv");
  ASSERT_EQ(level->spec().tensors.size(), 2);
  EXPECT_EQ(level->spec().tensors[1].name, "values");
  EXPECT_EQ(level->spec().tensors[1].columns, 48);
  EXPECT_FALSE(level_spec("ffn", {{"keys", 2, 32}}, 1, 4, DType::kF32, 32, 2, {0}, 1));
  EXPECT_FALSE(level_spec("steam", {{"keys", 2, 32}}, 1, 4, DType::kF32, 32, 2, {0}, 1));
  EXPECT_FALSE(level_spec("kv", {}, 1, 4, DType::kF32, 32, 2, {0}, 1));
}

TEST(BankLevelWriter, RefusesWrongUse) {
  const TempDir dir;
  const auto spec = *ffn_level_spec(1, 4, DType::kF16, 32, 2, {0}, 2);
  auto writer = *BankLevelWriter::create(dir.file("level1"), spec);
  const std::vector<float> block(3UL * 2 * 32, 0.5F);
  EXPECT_FALSE(writer.append(4, block));
  EXPECT_FALSE(writer.append(0, std::span(block).first(10)));
  EXPECT_TRUE(writer.append(1, block));
  EXPECT_FALSE(writer.append(1, block));
  EXPECT_FALSE(writer.finish());  // one block is missing
  EXPECT_FALSE(std::filesystem::exists(dir.file("level1")));
  EXPECT_FALSE(ffn_level_spec(1, 4, DType::kI4, 40, 2, {0}, 2));  // rows not a multiple of 32
  EXPECT_FALSE(ffn_level_spec(1, 4, DType::kF16, 32, 2, {1, 1}, 2));
  EXPECT_FALSE(ffn_level_spec(1, 4, DType::kF16, 32, 2, {0}, 5));  // more rows than nodes
  EXPECT_EQ(BankLevelWriter::create(dir.file("no/such/level1"), spec).error().code, ErrorCode::kIo);
}

TEST(BankLevelWriter, ABlockThatIsRefusedLeavesNoTrace) {
  const TempDir dir;
  const auto spec = *ffn_level_spec(1, 4, DType::kI8, 32, 2, {0, 1}, 2);
  const std::vector<float> block(2UL * 3 * 2 * 32, 0.5F);
  auto last_is_bad = block;
  last_is_bad.back() = std::numeric_limits<float>::infinity();
  const auto write = [&](const std::string& path, bool refused) {
    auto writer = *BankLevelWriter::create(path, spec);
    EXPECT_TRUE(writer.append(2, block));
    if (refused) {
      EXPECT_EQ(writer.append(1, last_is_bad).error().code, ErrorCode::kInvalidArgument);
    }
    EXPECT_TRUE(writer.append(1, block));
    EXPECT_TRUE(writer.finish());
    EXPECT_EQ(writer.finish().error().code, ErrorCode::kInvalidArgument);
    return read_file(path);
  };
  EXPECT_EQ(write(dir.file("refused"), true), write(dir.file("plain"), false));
}

TEST(BankLevelWriter, AFailedFinishLeavesNoFile) {
  const TempDir dir;
  auto writer = *BankLevelWriter::create(dir.file("level1"), *ffn_level_spec(1, 4, DType::kF16, 32, 2, {0}, 0));
  std::filesystem::create_directories(dir.file("level1/in the way"));
  const auto finished = writer.finish();
  EXPECT_EQ(finished.error().code, ErrorCode::kIo);
  EXPECT_NE(finished.error().message.find(dir.file("level1")), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir.file("level1.partial")));
}

TEST(BankLevelWriter, AnUnfinishedFileVanishes) {
  const TempDir dir;
  {
    auto writer = *BankLevelWriter::create(dir.file("level1"), *ffn_level_spec(1, 4, DType::kF16, 32, 2, {0}, 2));
    EXPECT_TRUE(std::filesystem::exists(dir.file("level1.partial")));
  }
  EXPECT_FALSE(std::filesystem::exists(dir.file("level1.partial")));
}

// A device that is full, or a limit on a file's size.
TEST(BankLevelWriter, AWriteThatFailsSaysWhy) {
  const TempDir dir;
  const auto spec = *ffn_level_spec(1, 4, DType::kF16, 32, 2, {0}, 2);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const rlimit small{3 * kPage / 2, old.rlim_max};  // inside the first block
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    auto writer = *BankLevelWriter::create(dir.file("level1"), spec);
    const auto full = writer.append(0, std::vector<float>(3UL * 2 * 32, 0.5F));
    EXPECT_EQ(full.error().code, ErrorCode::kIo);
    EXPECT_NE(full.error().message.find("level1.partial: writing failed: File too large"), std::string::npos);
  }
  EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, ignored);
  EXPECT_FALSE(std::filesystem::exists(dir.file("level1.partial")));
}

}  // namespace
}  // namespace edge
