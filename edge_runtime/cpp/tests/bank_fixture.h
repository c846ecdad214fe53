// Level files in a temporary directory, written by the real writer.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "edge_runtime/bank_level.h"
#include "edge_runtime/bank_writer.h"

namespace edge::testing {

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "edge-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline std::vector<std::byte> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// Inverts one bit of a byte in place: damage that no header tells of.
inline void flip_bit(const std::string& path, std::uint64_t offset) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get() ^ 1);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
}

inline constexpr std::uint32_t kFanout = 4;
inline constexpr std::uint32_t kWidth = 64;
inline constexpr std::uint32_t kLayers = 4;

struct LevelShape {
  std::uint32_t level = 1;
  DType dtype = DType::kF32;
  std::uint32_t rows_per_block = 16;
  std::uint32_t d_model = kWidth;
  std::vector<std::uint64_t> nodes = {};  // those with a block; all of the level where empty
  std::uint32_t seed = 1;
};

// Random values; the scale of each block differs, so that no two blocks are alike.
inline void write_level(const std::string& path, const LevelShape& shape) {
  std::uint64_t count = 1;
  for (std::uint32_t level = 0; level < shape.level; ++level) count *= kFanout;
  std::vector<std::uint64_t> nodes = shape.nodes;
  if (nodes.empty()) {
    nodes.resize(count);
    std::iota(nodes.begin(), nodes.end(), 0);
  }
  std::vector<std::uint32_t> anchor_layers(kLayers);
  std::iota(anchor_layers.begin(), anchor_layers.end(), 1);
  const auto spec = ffn_level_spec(shape.level, kFanout, shape.dtype, shape.d_model, shape.rows_per_block,
                                   anchor_layers, nodes.size());
  ASSERT_TRUE(spec) << spec.error().message;
  auto writer = BankLevelWriter::create(path, *spec);
  ASSERT_TRUE(writer) << writer.error().message;
  std::mt19937 random(shape.seed + shape.level);
  std::normal_distribution<float> normal;
  std::vector<float> values(std::size_t{kLayers} * 3 * shape.rows_per_block * shape.d_model);
  for (const std::uint64_t node : nodes) {
    for (float& value : values) value = normal(random);
    const auto appended = writer->append(node, values);
    ASSERT_TRUE(appended) << appended.error().message;
  }
  const auto finished = writer->finish();
  ASSERT_TRUE(finished) << finished.error().message;
}

}  // namespace edge::testing
