#include "edge_runtime/static_embedder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bank_fixture.h"

namespace edge {
namespace {

using testing::TempDir;

// Three tokens of width 2 in a space of 3, and one bucket for all n-grams.
StaticTables small(std::uint32_t order = 2) {
  StaticTables t;
  t.vocab_size = 3;
  t.width = 2;
  t.dim = 3;
  t.order = order;
  t.token_scales = {1, 0.5F, 0};
  t.map = {1, 0, 0, 0, 1, 0};
  t.bias = {0, 0, 2};
  t.tokens = {4, 0, 0, 6, 100, 100};
  if (order > 1) {
    t.ngram_rows = 1;
    t.ngram_scales = {1};
    t.ngrams = {0, 3};
  }
  return t;
}

class StaticFile : public ::testing::Test {
 protected:
  StaticEmbedder opened(const StaticTables& tables) {
    const auto written = write_static_embedder(path_, tables);
    EXPECT_TRUE(written) << written.error().message;
    auto embedder = StaticEmbedder::open(path_);
    EXPECT_TRUE(embedder) << embedder.error().message;
    return *std::move(embedder);
  }

  std::vector<float> embed(const StaticTables& tables, const std::vector<std::uint32_t>& ids) {
    std::vector<float> out(tables.dim);
    const auto status = opened(tables).embed(ids, out);
    EXPECT_TRUE(status) << status.error().message;
    return out;
  }

  static void expect_direction(const std::vector<float>& got, std::vector<float> want) {
    double squares = 0;
    for (const float v : want) squares += static_cast<double>(v) * v;
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i] / std::sqrt(squares), 1e-6) << i;
  }

  TempDir dir_;
  std::string path_ = dir_.file("static.safetensors");
};

TEST_F(StaticFile, PoolsMapsAndNormalises) {
  expect_direction(embed(small(1), {0}), {4, 0, 2});
  expect_direction(embed(small(1), {0, 1}), {2, 1.5F, 2});
  expect_direction(embed(small(1), {1, 2, 2}), {0, 1, 2});  // a weight of 0 still counts as a row
}

TEST_F(StaticFile, LooksUpEveryNgramUpToItsOrder) {
  expect_direction(embed(small(2), {0, 0}), {8.0F / 3, 1, 2});
  expect_direction(embed(small(3), {0, 0, 0}), {12.0F / 6, 9.0F / 6, 2});  // two of 2, one of 3
  // Order matters once there are enough buckets to tell n-grams apart.
  StaticTables many = small(2);
  many.ngram_rows = 64;
  many.ngram_scales.assign(64, 1);
  many.ngrams.resize(128);
  for (std::size_t i = 0; i < 128; ++i) many.ngrams[i] = static_cast<std::int8_t>(i * 37);
  EXPECT_NE(embed(many, {0, 1}), embed(many, {1, 0}));
}

TEST_F(StaticFile, NoTokensGiveTheBiasAndZeroStaysZero) {
  expect_direction(embed(small(), {}), {0, 0, 1});
  StaticTables zero = small(1);
  zero.bias = {0, 0, 0};
  EXPECT_EQ(embed(zero, {}), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(embed(zero, {2}), (std::vector<float>{0, 0, 0}));
}

TEST_F(StaticFile, TheLargestValuesStayFinite) {
  StaticTables t = small(1);
  t.token_scales.assign(3, 0x1p20F);
  t.map.assign(6, -0x1p20F);
  t.bias.assign(3, 0x1p20F);
  t.tokens.assign(6, -128);
  for (const float v : embed(t, std::vector<std::uint32_t>(10000, 1))) EXPECT_NEAR(v, 1 / std::sqrt(3.0F), 1e-6);
}

TEST_F(StaticFile, RefusesIdsOutsideTheVocabularyAndOtherLengths) {
  const auto embedder = opened(small());
  std::vector<float> out(3);
  EXPECT_EQ(embedder.embed(std::vector<std::uint32_t>{0, 3}, out).error().code, ErrorCode::kInvalidArgument);
  out.resize(2);
  EXPECT_EQ(embedder.embed({}, out).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(embedder.bytes(), 4U * (3 + 1 + 6 + 3) + 6 + 2);
}

TEST_F(StaticFile, WriterRefusesWhatTheFormatForbids) {
  using Edit = std::function<void(StaticTables&)>;
  const std::vector<Edit> wrong = {
      [](StaticTables& t) { t.tokens.pop_back(); },
      [](StaticTables& t) { t.map.push_back(0); },
      [](StaticTables& t) { t.bias[0] = std::numeric_limits<float>::quiet_NaN(); },
      [](StaticTables& t) { t.map[0] = -0x1.1p20F; },
      [](StaticTables& t) { t.token_scales[0] = -1; },
      [](StaticTables& t) { t.ngram_scales[0] = std::numeric_limits<float>::infinity(); },
      [](StaticTables& t) { t.order = 1; },  // n-gram rows that nothing reads
      [](StaticTables& t) { t.order = 5; },
      [](StaticTables& t) { t.width = 0; },
  };
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    StaticTables tables = small();
    wrong[i](tables);
    const auto status = write_static_embedder(path_, tables);
    ASSERT_FALSE(status) << i;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  }
}

class HostileStaticFile : public StaticFile {
 protected:
  // Every outcome is a value: an embedder that embeds, or an error of one line.
  void open_and_use() const {
    const auto embedder = StaticEmbedder::open(path_);
    if (!embedder) {
      EXPECT_EQ(embedder.error().message.find('\n'), std::string::npos);
      return;
    }
    std::vector<float> out(embedder->dim());
    const std::vector<std::uint32_t> ids = {0, embedder->vocab_size() - 1, 0};
    ASSERT_TRUE(embedder->embed(ids, out));
    EXPECT_TRUE(std::all_of(out.begin(), out.end(), [](float v) { return std::isfinite(v); }));
  }

  void write(const std::string& text) const { std::ofstream(path_, std::ios::binary | std::ios::trunc) << text; }

  std::string written() const {
    EXPECT_TRUE(write_static_embedder(path_, small()));
    const auto bytes = testing::read_file(path_);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
};

TEST_F(HostileStaticFile, EveryTruncationIsRefused) {
  const std::string text = written();
  for (std::size_t size = 0; size < text.size(); ++size) {
    write(text.substr(0, size));
    EXPECT_FALSE(StaticEmbedder::open(path_)) << size;
  }
}

TEST_F(HostileStaticFile, FlippedBitsNeverCrash) {
  const std::string text = written();
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = text;
    for (auto flips = 1 + random() % 3; flips > 0; --flips) {
      damaged[random() % damaged.size()] ^= static_cast<char>(1U << random() % 8);
    }
    write(damaged);
    open_and_use();
  }
}

TEST_F(HostileStaticFile, NumbersThatDoNotAgreeAreRefused) {
  const std::string text = written();
  const std::vector<std::pair<std::string, std::string>> lies = {
      {R"("vocab_size":"3")", R"("vocab_size":"4")"},
      {R"("vocab_size":"3")", R"("vocab_size":"0")"},
      {R"("width":"2")", R"("width":"9")"},
      {R"("width":"2")", R"("width":"x")"},
      {R"("dim":"3")", R"("dim":"1")"},
      {R"("order":"2")", R"("order":"1")"},
      {R"("order":"2")", R"("order":"5")"},
      {R"("ngram_rows":"1")", R"("ngram_rows":"2")"},
      {R"("version":"1")", R"("version":"2")"},
      {"static-embedder", "static_embedder"},
      {R"("tokens":{"dtype":"I8")", R"("tokens":{"dtype":"U8")"}};
  for (const auto& [from, to] : lies) {
    std::string damaged = text;
    ASSERT_NE(damaged.find(from), std::string::npos) << from;
    damaged.replace(damaged.find(from), from.size(), to);
    write(damaged);
    EXPECT_FALSE(StaticEmbedder::open(path_)) << to;
  }
  EXPECT_EQ(StaticEmbedder::open(dir_.file("none")).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace edge
