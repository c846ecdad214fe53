// Level files: what the writer writes the reader reads, and what is hostile it refuses.
#include "edge_runtime/bank_level.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>
#include <string>

#include "bank_fixture.h"

namespace edge {
namespace {

using testing::LevelShape;
using testing::read_file;
using testing::TempDir;
using testing::write_level;

void write_bytes(const std::string& path, const std::vector<std::byte>& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

std::string header_of(const std::vector<std::byte>& bytes) {
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  return {reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(length)};
}

// The file with a piece of its header exchanged, the header's length unchanged (it ends in spaces).
std::vector<std::byte> with_header(std::vector<std::byte> bytes, const std::string& from, const std::string& to) {
  std::string header = header_of(bytes);
  const std::size_t size = header.size();
  const std::size_t at = header.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  header.replace(at, from.size(), to);
  header.resize(size, ' ');
  std::memcpy(bytes.data() + 8, header.data(), size);
  return bytes;
}

class BankLevelFile : public ::testing::Test {
 protected:
  void SetUp() override {
    write_level(path_, {.level = 1, .dtype = DType::kI8, .nodes = {3, 0, 2}});
    bytes_ = read_file(path_);
  }

  ErrorCode code_of(const std::vector<std::byte>& bytes) {
    const std::string path = dir_.file("hostile.safetensors");
    write_bytes(path, bytes);
    const auto opened = BankLevel::open(path);
    if (opened) return ErrorCode{0};
    EXPECT_NE(opened.error().message.find(path), std::string::npos) << opened.error().message;
    const bool printable = std::all_of(opened.error().message.begin(), opened.error().message.end(),
                                       [](char c) { return c >= ' ' && c <= '~'; });
    EXPECT_TRUE(printable) << opened.error().message;
    return opened.error().code;
  }

  TempDir dir_;
  std::string path_ = dir_.file("level1.safetensors");
  std::vector<std::byte> bytes_;
};

TEST_F(BankLevelFile, HasTheLayoutOfTheFormat) {
  const auto level = BankLevel::open(path_);
  ASSERT_TRUE(level) << level.error().message;
  EXPECT_EQ(level->data_start() % kPage, 0U);
  EXPECT_EQ(level->spec().stride() % kPage, 0U);
  EXPECT_EQ(level->spec().rows, 3U);
  EXPECT_EQ(level->spec().nodes, 4U);
  EXPECT_EQ(level->row_of(0), 1);
  EXPECT_EQ(level->row_of(1), -1);
  EXPECT_EQ(level->row_of(3), 0);
  EXPECT_EQ(level->file_bytes(), bytes_.size());
  for (std::uint64_t row = 0; row < 3; ++row) {
    const std::span block(bytes_.data() + level->block_offset(row), level->spec().stride());
    for (std::uint64_t layer = 0; layer < level->spec().layers(); ++layer) {
      EXPECT_EQ(layer_checksum(level->spec(), block, layer), level->checksum(row, layer));
    }
  }
}

TEST_F(BankLevelFile, ChecksumsCoverEveryByteOfALayer) {
  const auto level = *BankLevel::open(path_);
  const BankLevelSpec& spec = level.spec();
  std::vector<std::byte> block(bytes_.begin() + static_cast<std::ptrdiff_t>(level.block_offset(0)),
                               bytes_.begin() + static_cast<std::ptrdiff_t>(level.block_offset(1)));
  for (const std::uint64_t at :
       {spec.scale_offset(1), spec.scale_offset(2) - 1, spec.layer_offset(1), spec.layer_offset(2) - 1}) {
    block[at] ^= std::byte{0x40};
    EXPECT_NE(layer_checksum(spec, block, 1), level.checksum(0, 1));
    EXPECT_EQ(layer_checksum(spec, block, 2), level.checksum(0, 2));
    block[at] ^= std::byte{0x40};
  }
}

TEST_F(BankLevelFile, WritesTheSameBytesAgain) {
  const std::string again = dir_.file("again.safetensors");
  write_level(again, {.level = 1, .dtype = DType::kI8, .nodes = {3, 0, 2}});
  EXPECT_EQ(read_file(again), bytes_);
}

TEST_F(BankLevelFile, RefusesHostileHeaders) {
  const auto bad = ErrorCode::kBadFormat;
  EXPECT_EQ(code_of(with_header(bytes_, "edge-runtime.bank", "edge-runtime.bonk")), bad);
  EXPECT_EQ(code_of(with_header(bytes_, "\"version\":\"1\"", "\"version\":\"2\"")), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with_header(bytes_, "\"version\":\"1\"", "\"version\":\"-1\"")), bad);
  EXPECT_EQ(code_of(with_header(bytes_, "\"dtype\":\"i8\"", "\"dtype\":\"i7\"")), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with_header(bytes_, "\"dtype\":\"i8\"", "\"dtype\":\"f16\"")), bad);  // another stride
  EXPECT_EQ(code_of(with_header(bytes_, "\"level\":\"1\"", "\"level\":\"2\"")), bad);     // another number of nodes
  EXPECT_EQ(code_of(with_header(bytes_, "\"level\":\"1\"", "\"level\":\"99\"")), bad);
  EXPECT_EQ(code_of(with_header(bytes_, "\"fanout\":\"4\"", "\"fanout\":\"4x\"")), bad);
  EXPECT_EQ(code_of(with_header(bytes_, "\"fanout\":\"4\"", "\"fanout\":\"" + std::string(20, '0') + "4\"")), bad);
  EXPECT_EQ(code_of(with_header(bytes_, "\"fanout\":\"4\"", "\"fanout\":\"\\n\\u001b[2J\"")),
            bad);  // quoted in the error
  EXPECT_EQ(code_of(with_header(bytes_, "\"fanout\":\"4\"", "\"fanout\":4")), bad);
  EXPECT_EQ(code_of(with_header(bytes_, "\"kind\":\"ffn\"", "\"kind\":\"fun\"")), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with_header(bytes_, "[1,2,3,4]", "[1,2,2,4]")), bad);
  EXPECT_EQ(code_of(with_header(bytes_, "[1,2,3,4]", "[1,2,3,]")), bad);
  EXPECT_EQ(code_of(with_header(bytes_, "row_of_node", "row_of_nude")), bad);
  EXPECT_EQ(code_of(with_header(bytes_, "\"kind\":\"ffn\"", "\"kind\":\"ffn\",\"kind\":\"kv\"")), bad);  // a key twice
  EXPECT_EQ(code_of(with_header(bytes_, "\"rows_per_block\":\"16\"", "\"rows_per_block\":\"18446744073709551615\"")),
            bad);
  const std::string page = std::to_string(BankLevel::open(path_)->spec().stride());
  EXPECT_EQ(code_of(with_header(bytes_, "[3," + page + "]", "[4611686018427387905," + page + "]")), bad);  // overflows
  EXPECT_EQ(code_of(with_header(bytes_, "{\"__metadata__\"", "[[[[[[[[[[[[[[[[[[[[\"x\"")), bad);
}

// A later version may have other tensors, a later kind or dtype other values: they are newer, not damaged.
TEST_F(BankLevelFile, CallsWhatIsNewerUnsupportedWhateverElseDiffers) {
  const auto newer = with_header(bytes_, "\"version\":\"1\"", "\"version\":\"2\"");
  const std::string rows = "\"I32\",\"shape\":[4]";
  EXPECT_EQ(code_of(with_header(newer, rows, "\"C64\",\"shape\":[2]")), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with_header(bytes_, rows, "\"C64\",\"shape\":[2]")), ErrorCode::kBadFormat);
  EXPECT_EQ(code_of(with_header(newer, rows, "\"I33\",\"shape\":[4]")), ErrorCode::kBadFormat);  // no safetensors file
  const std::pair<std::string, std::string> changes[] = {{"\"kind\":\"ffn\"", "\"kind\":\"fun\""},
                                                         {"\"dtype\":\"i8\"", "\"dtype\":\"i7\""}};
  for (const auto& [from, to] : changes) {
    const auto later = with_header(bytes_, from, to);
    EXPECT_EQ(code_of(with_header(later, "\"level\":\"1\"", "\"level\":\"a\"")), ErrorCode::kUnsupported);
    EXPECT_EQ(code_of(with_header(later, "[1,2,3,4]", "[4,3,2,1]")), ErrorCode::kUnsupported);
  }
}

TEST(BankLevelOpen, RefusesWhatIsNoFile) {
  const TempDir dir;
  EXPECT_EQ(BankLevel::open(dir.file("")).error().code, ErrorCode::kIo);  // a directory
  ASSERT_EQ(::mkfifo(dir.file("pipe").c_str(), 0600), 0);
  EXPECT_EQ(BankLevel::open(dir.file("pipe")).error().code, ErrorCode::kIo);  // does not wait for a writer
}

// A NUL ends the text for some parsers and not for others.
TEST_F(BankLevelFile, RefusesAHeaderWithANul) {
  auto hostile = bytes_;
  hostile[8 + header_of(bytes_).find("          ")] = std::byte{0};
  EXPECT_EQ(code_of(hostile), ErrorCode::kBadFormat);
}

TEST_F(BankLevelFile, RefusesMetadataNestedTooDeep) {
  const std::string deep = std::string(8000, '[');
  EXPECT_EQ(code_of(with_header(bytes_, "[1,2,3,4]", deep)), ErrorCode::kBadFormat);
  EXPECT_EQ(code_of(with_header(bytes_, "\"[1,2,3,4]\"", deep)), ErrorCode::kBadFormat);
}

TEST_F(BankLevelFile, RefusesFilesCutShortOrLong) {
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, std::size_t{8}, std::size_t{5000}, bytes_.size() / 2, bytes_.size() - 1}) {
    EXPECT_EQ(code_of({bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(size)}), ErrorCode::kTruncated)
        << size;
  }
  auto longer = bytes_;
  longer.push_back(std::byte{0});
  EXPECT_EQ(code_of(longer), ErrorCode::kBadFormat);
  EXPECT_EQ(BankLevel::open(dir_.file("none")).error().code, ErrorCode::kNotFound);
}

TEST_F(BankLevelFile, RefusesAHugeHeaderLengthWithoutAllocating) {
  auto hostile = bytes_;
  const std::uint64_t length = 1ULL << 62U;
  std::memcpy(hostile.data(), &length, sizeof(length));
  EXPECT_EQ(code_of(hostile), ErrorCode::kBadFormat);
}

TEST_F(BankLevelFile, RefusesARowTableThatLies) {
  const std::size_t table = bytes_.size() - 4 * sizeof(std::int32_t);
  for (const std::int32_t row : {-2, 3, 1, 2147483647}) {  // negative, outside, named twice, far outside
    auto hostile = bytes_;
    std::memcpy(hostile.data() + table + 4, &row, sizeof(row));
    EXPECT_EQ(code_of(hostile), ErrorCode::kBadFormat) << row;
  }
  auto orphan = bytes_;
  const std::int32_t none = -1;
  std::memcpy(orphan.data() + table, &none, sizeof(none));
  EXPECT_EQ(code_of(orphan), ErrorCode::kBadFormat);
}

TEST_F(BankLevelFile, RandomDamageNeverCrashes) {
  std::mt19937 random(11);
  const std::size_t header = 8 + header_of(bytes_).find("                ");
  for (int trial = 0; trial < 3000; ++trial) {
    auto hostile = bytes_;
    const bool in_header = trial % 4 != 0;
    for (std::size_t hits = 1 + random() % 3; hits > 0; --hits) {
      const std::size_t at = in_header ? random() % header : hostile.size() - 1 - random() % 200;
      hostile[at] = static_cast<std::byte>(random());
    }
    if (trial % 7 == 0) hostile.resize(random() % hostile.size());
    code_of(hostile);
  }
}

}  // namespace
}  // namespace edge
