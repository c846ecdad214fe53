// The golden files of tests/format (make_golden.py writes them, from the documents): what our writers make of the same
// contents is the same bytes, and what our readers make of the bytes the same contents.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "bank_fixture.h"
#include "edge_runtime/blocking_pager.h"
#include "edge_runtime/manifest.h"
#include "edge_runtime/native_writer.h"
#include "edge_runtime/static_embedder.h"
#include "edge_runtime/tree.h"
#include "native/weights.h"

namespace edge {
namespace {

using testing::read_file;
using testing::TempDir;

constexpr std::uint32_t kGoldenFanout = 4;
constexpr std::uint32_t kGoldenWidth = 32;
constexpr std::uint32_t kRows = 2;
constexpr std::array<std::uint64_t, 3> kNodes = {3, 0, 2};
constexpr std::size_t kBlockValues = std::size_t{2} * 3 * kRows * kGoldenWidth;

std::string golden(const std::string& name) { return std::string(EDGE_GOLDEN_DIR) + "/" + name; }

// make_golden.py's numbered().
std::vector<float> numbered(std::uint64_t number, std::uint64_t count) {
  std::vector<float> values(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t hashed = (((i + 1) * 2654435761U + number * 40503U) & 0xFFFFFFFFU) >> 16U;
    values[i] = static_cast<float>(static_cast<int>(hashed % 2001) - 1000) / 256;
  }
  return values;
}

std::vector<float> golden_values(std::uint64_t node) {
  std::vector<float> values = numbered(node, kBlockValues);
  for (std::uint64_t i = 0; i < std::uint64_t{2} * kGoldenWidth; ++i) {
    values[i] = i < kGoldenWidth ? 0.0F : values[i] * 0x1p-20F;
  }
  return values;
}

class Golden : public ::testing::TestWithParam<DType> {
 protected:
  std::string path() const { return golden("level1." + std::string(name(GetParam())) + ".safetensors"); }

  // [rows, layers, 3, r, d]
  std::vector<float> expected() const {
    const auto bytes = read_file(golden("level1." + std::string(name(GetParam())) + ".values"));
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
};
INSTANTIATE_TEST_SUITE_P(All, Golden, ::testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kI4),
                         [](const auto& instance) { return std::string(name(instance.param)); });

TEST_P(Golden, TheWriterMakesTheSameBytes) {
  const TempDir dir;
  const auto spec = *ffn_level_spec(1, kGoldenFanout, GetParam(), kGoldenWidth, kRows, {1, 4}, kNodes.size());
  auto writer = *BankLevelWriter::create(dir.file("level1"), spec);
  for (const std::uint64_t node : kNodes) ASSERT_TRUE(writer.append(node, golden_values(node)));
  ASSERT_TRUE(writer.finish());
  const auto want = read_file(path());
  ASSERT_FALSE(want.empty()) << path();
  EXPECT_EQ(read_file(dir.file("level1")), want);
}

TEST_P(Golden, ThePagerBringsTheSameValues) {
  const auto want = expected();
  ASSERT_EQ(want.size(), kNodes.size() * kBlockValues);
  for (const StorageKind kind : {StorageKind::kDirect, StorageKind::kMapped}) {
    const auto pager = *BlockingPager::open({{path()}}, kind, PagerOptions{.budget = kPage});
    for (std::size_t i = 0; i < kNodes.size(); ++i) {
      const auto lease = *pager->fetch(std::vector<Node>{{1, kNodes[i]}});
      std::vector<float> got;
      for (std::uint32_t layer = 0; layer < 2; ++layer) {
        std::vector<MemoryRows> rows;
        ASSERT_TRUE(lease->layer(layer, rows));
        ASSERT_EQ(rows.size(), 1U);
        for (std::size_t row = 0; row < std::size_t{3} * kRows; ++row) {
          std::vector<float> values(kGoldenWidth);
          dequantize_row(rows[0].dtype, rows[0].data + row * row_bytes(rows[0].dtype, kGoldenWidth),
                         rows[0].scales + row * row_scale_bytes(rows[0].dtype, kGoldenWidth), values);
          got.insert(got.end(), values.begin(), values.end());
        }
      }
      const auto* const begin = want.data() + i * kBlockValues;
      EXPECT_EQ(got, std::vector<float>(begin, begin + kBlockValues)) << "node " << kNodes[i];
    }
    EXPECT_TRUE((*pager->fetch(std::vector<Node>{{1, 1}}))->blocks()->empty());
  }
}

// make_golden.py's native_tensors(): every tensor that there is.
NativeConfig golden_anchor(DType dtype) {
  const std::uint32_t ffn = dtype == DType::kI4 ? 64 : 48;
  NativeConfig config = {1, kGoldenWidth, 2, 1, 16, ffn, 5, 128, false, 1e-6F, QkNorm::kHead, false, {}, {}, {}};
  config.set_layers(1e4F);
  config.post_norm = config.qkv_bias = config.output_bias = config.ffn_bias = true;
  return config;
}

TEST_P(Golden, TheNativeWriterMakesTheSameBytesAndTheReaderReadsThem) {
  const TempDir dir;
  const NativeConfig config = golden_anchor(GetParam());
  const std::string want = golden("native." + std::string(name(GetParam())) + ".safetensors");
  auto writer = *NativeWriter::create(dir.file("anchor"), config, GetParam());
  std::uint64_t number = 0;
  for (const NativeTensor& tensor : writer.tensors()) {
    ASSERT_TRUE(writer.append(numbered(number++, tensor.rows() * tensor.columns())));
  }
  ASSERT_TRUE(writer.finish());
  EXPECT_EQ(read_file(dir.file("anchor")), read_file(want));

  const auto weights = native::Weights::open(want, config);
  ASSERT_TRUE(weights) << weights.error().message;
  const native::Layer& layer = weights->layers[0];
  const auto expect_matrix = [&](const native::Matrix& matrix, std::uint64_t of) {
    auto values = numbered(of, matrix.rows * matrix.columns);
    std::vector<std::byte> data(row_bytes(GetParam(), matrix.columns));
    std::vector<std::byte> scales(row_scale_bytes(GetParam(), matrix.columns));
    std::vector<float> got(matrix.columns);
    for (std::size_t i = 0; i < matrix.rows; ++i) {
      const std::span<float> row(values.data() + i * matrix.columns, matrix.columns);
      ASSERT_TRUE(quantize_row(GetParam(), row, data.data(), scales.data()));
      dequantize_row(GetParam(), data.data(), scales.data(), row);
      matrix.row(i, got);
      EXPECT_EQ(got, std::vector<float>(row.begin(), row.end())) << of << " row " << i;
    }
  };
  // By their places in the file's order.
  const std::array<std::pair<const native::Matrix*, std::uint64_t>, 7> matrices = {{{&weights->embedding, 0},
                                                                                    {&layer.qkv, 2},
                                                                                    {&layer.attention_out, 6},
                                                                                    {&layer.gate, 10},
                                                                                    {&layer.up, 12},
                                                                                    {&layer.down, 14},
                                                                                    {&weights->head, 18}}};
  for (const auto& [matrix, of] : matrices) expect_matrix(*matrix, of);
  const std::array<std::pair<const float*, std::uint64_t>, 12> vectors = {{{layer.attention_norm, 1},
                                                                           {layer.qkv_bias, 3},
                                                                           {layer.q_norm, 4},
                                                                           {layer.k_norm, 5},
                                                                           {layer.attention_out_bias, 7},
                                                                           {layer.attention_post_norm, 8},
                                                                           {layer.ffn_norm, 9},
                                                                           {layer.gate_bias, 11},
                                                                           {layer.up_bias, 13},
                                                                           {layer.down_bias, 15},
                                                                           {layer.ffn_post_norm, 16},
                                                                           {weights->norm, 17}}};
  for (const auto& [vector, of] : vectors) {
    const auto wanted = numbered(of, config.head_dim);
    EXPECT_EQ(std::vector<float>(vector, vector + wanted.size()), wanted) << of;
  }
}

TEST(GoldenTree, TheWriterMakesTheSameBytesAndTheReaderReadsThem) {
  const TempDir dir;
  std::array<std::vector<float>, 2> vectors;
  std::array<std::vector<std::int32_t>, 2> counts;
  for (std::size_t level = 0; level < 2; ++level) {
    for (int n = 0; n < (level == 0 ? 4 : 16); ++n) {
      for (int j = 0; j < 3; ++j) vectors[level].push_back(static_cast<float>((7 * n + 3 * j) % 23) / 4);
      counts[level].push_back(n % 5);
    }
  }
  const std::array<std::span<const float>, 2> centroids = {vectors[0], vectors[1]};
  const std::array<std::span<const std::int32_t>, 2> documents = {counts[0], counts[1]};
  ASSERT_TRUE(write_tree(dir.file("tree"), 4, 3, centroids, documents));
  EXPECT_EQ(read_file(dir.file("tree")), read_file(golden("tree.safetensors")));

  const auto tree = Tree::open(golden("tree.safetensors"));
  ASSERT_TRUE(tree) << tree.error().message;
  EXPECT_EQ(tree->depth(), 2U);
  // Node 0 has no documents, so the embedding that equals its centroid goes elsewhere.
  const std::vector<float> embedding = {0, 0.75F, 1.5F};
  EXPECT_EQ(tree->descend(embedding)->path, (std::vector<std::uint64_t>{1, 7}));
}

// make_golden.py's tables: see its static().
StaticTables golden_tables() {
  StaticTables t;
  t.vocab_size = 5;
  t.width = 4;
  t.dim = 3;
  t.order = 3;
  t.ngram_rows = 7;
  const auto fill = [](int rows, std::vector<std::int8_t>& table, std::vector<float>& scales) {
    for (int i = 0; i < rows; ++i) {
      scales.push_back(static_cast<float>(i % 4) / 64);
      for (int j = 0; j < 4; ++j) table.push_back(static_cast<std::int8_t>((31 * i + 17 * j) % 255 - 127));
    }
  };
  fill(5, t.tokens, t.token_scales);
  fill(7, t.ngrams, t.ngram_scales);
  for (int i = 0; i < 5; ++i) {
    for (int j = 0; j < 3; ++j) (i < 4 ? t.map : t.bias).push_back(static_cast<float>((7 * i + 3 * j) % 23 - 11) / 8);
  }
  return t;
}

TEST(GoldenStaticEmbedder, TheWriterMakesTheSameBytesAndTheReaderTheSameEmbeddings) {
  const TempDir dir;
  ASSERT_TRUE(write_static_embedder(dir.file("static"), golden_tables()));
  EXPECT_EQ(read_file(dir.file("static")), read_file(golden("static.safetensors")));

  const auto embedder = StaticEmbedder::open(golden("static.safetensors"));
  ASSERT_TRUE(embedder) << embedder.error().message;
  const auto bytes = read_file(golden("static.values"));
  std::vector<float> want(bytes.size() / sizeof(float));
  std::memcpy(want.data(), bytes.data(), bytes.size());
  const std::vector<std::vector<std::uint32_t>> texts = {{}, {0}, {4, 4, 4}, {1, 2, 3, 4, 0, 1, 2}};
  ASSERT_EQ(want.size(), texts.size() * 3);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::vector<float> got(3);
    ASSERT_TRUE(embedder->embed(texts[i], got));
    for (std::size_t j = 0; j < 3; ++j) EXPECT_NEAR(got[j], want[i * 3 + j], 1e-6) << i;
  }
}

TEST(GoldenManifest, IsValidAndCommittedAsItIs) {
  const TempDir dir;
  const auto bytes = read_file(golden("manifest.json"));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto valid = validate_manifest(text);
  ASSERT_TRUE(valid) << valid.error().message;
  ASSERT_TRUE(commit_manifest(std::filesystem::path(dir.file("x")).parent_path(), text));
  EXPECT_EQ(read_file(dir.file("manifest.json")), bytes);
}

}  // namespace
}  // namespace edge
