#include "edge_runtime/tree.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bank_fixture.h"

namespace edge {
namespace {

using testing::TempDir;

// Fanout 2, depth 2, dim 2: level 1 at x = -1 and +1, its children at y = -1 and +1.
class TreeFile : public ::testing::Test {
 protected:
  void write(std::array<std::int32_t, 4> leaves = {5, 5, 5, 5}) {
    const std::vector<float> one = {-1, 0, 1, 0};
    const std::vector<float> two = {-1, -1, -1, 1, 1, -1, 1, 1};
    const std::vector<std::int32_t> counts = {10, 10};
    const std::array<std::span<const float>, 2> centroids = {one, two};
    const std::array<std::span<const std::int32_t>, 2> documents = {counts, leaves};
    const auto written = write_tree(path_, 2, 2, centroids, documents);
    ASSERT_TRUE(written) << written.error().message;
  }

  std::vector<std::uint64_t> path_of(std::vector<float> x, std::vector<Node> blocked = {},
                                     std::optional<std::uint32_t> depth = std::nullopt) {
    const auto tree = Tree::open(path_);
    EXPECT_TRUE(tree) << tree.error().message;
    return tree->descend(x, blocked, depth)->path;
  }

  using Path = std::vector<std::uint64_t>;
  TempDir dir_;
  std::string path_ = dir_.file("tree.safetensors");
};

TEST_F(TreeFile, DescendsToTheNearestChild) {
  write();
  EXPECT_EQ(path_of({-0.5F, 0.2F}), (Path{0, 1}));
  EXPECT_EQ(path_of({2, -3}), (Path{1, 2}));
  EXPECT_EQ(path_of({2, -3}, {}, 1), (Path{1}));
  EXPECT_EQ(path_of({0, 0}), (Path{0, 0}));  // ties go to the lower index
  const auto route = *Tree::open(path_)->descend(std::vector<float>{-0.5F, 0.0F});
  EXPECT_FLOAT_EQ(route.margins[0], 2.25F - 0.25F);
  EXPECT_FLOAT_EQ(route.margins[1], 0.0F);
}

TEST_F(TreeFile, PassesByBlockedAndEmptyNodes) {
  write({5, 0, 5, 5});
  EXPECT_EQ(path_of({-1, 1}), (Path{0, 0}));            // node 1 of level 2 is empty
  EXPECT_EQ(path_of({-1, 1}, {{1, 0}}), (Path{1, 3}));  // the whole subtree is out
  EXPECT_EQ(path_of({-1, 1}, {{2, 0}}), (Path{0}));     // no child is left: the path ends early
  EXPECT_EQ(path_of({-1, 1}, {{1, 0}, {1, 1}}), (Path{}));
  EXPECT_TRUE(std::isinf(Tree::open(path_)->descend(std::vector<float>{-1, 1})->margins[1]));
}

TEST_F(TreeFile, RanksPathsByWhatTheyConcede) {
  write();
  const auto tree = *Tree::open(path_);
  const std::vector<float> x = {-0.5F, 0.2F};
  // Level 1: node 0 at 0.25 + 0.04, node 1 at 2.25 + 0.04. Their children at y = -1 and 1: 1.44 and 0.64 beside x's.
  const auto ranked = *tree.rank(x, 10);
  ASSERT_EQ(ranked.size(), 4U);
  EXPECT_EQ(ranked[0].path, tree.descend(x)->path);
  EXPECT_EQ(ranked[0].conceded, 0);
  EXPECT_EQ(ranked[1].path, (Path{0, 0}));
  EXPECT_FLOAT_EQ(ranked[1].conceded, 0.8F);
  EXPECT_EQ(ranked[2].path, (Path{1, 3}));
  EXPECT_FLOAT_EQ(ranked[2].conceded, 2.0F);
  EXPECT_EQ(ranked[3].path, (Path{1, 2}));
  EXPECT_FLOAT_EQ(ranked[3].conceded, 2.8F);
  for (const RankedPath& one : ranked) EXPECT_EQ(*tree.conceded(x, one.path), one.conceded);
  EXPECT_EQ(tree.rank(x, 2)->size(), 2U);
  EXPECT_EQ((*tree.rank(x, 2, {}, 1))[1].path, (Path{1}));
}

TEST_F(TreeFile, RanksNoPathThatIsShut) {
  write({5, 0, 5, 5});
  const auto tree = *Tree::open(path_);
  const std::vector<float> x = {-1, 1};
  const std::vector<Node> blocked = {{2, 0}, {2, 3}};
  const auto ranked = *tree.rank(x, 10, blocked);
  // Below node 0 no child is left: its path ends early, as in the descent.
  ASSERT_EQ(ranked.size(), 2U);
  EXPECT_EQ(ranked[0].path, tree.descend(x, blocked)->path);
  EXPECT_EQ(ranked[1].path, (Path{1, 2}));
  EXPECT_TRUE(std::isinf(*tree.conceded(x, Path{0, 0}, blocked)));
  EXPECT_TRUE(std::isinf(*tree.conceded(x, Path{0, 1})));
  const std::vector<Node> all = {{1, 0}, {1, 1}};
  EXPECT_EQ(tree.rank(x, 3, all)->at(0).path, (Path{}));
}

TEST_F(TreeFile, RankRefusesWhatMakesNoSense) {
  write();
  const auto tree = *Tree::open(path_);
  const std::vector<float> x = {0, 0};
  EXPECT_EQ(tree.rank(x, 0).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(tree.rank(x, Tree::kMostPaths + 1).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(tree.rank(std::vector<float>{1}, 1).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(tree.conceded(std::vector<float>{1}, Path{0}).error().code, ErrorCode::kInvalidArgument);
  for (const Path& path : {Path{2}, Path{0, 2}, Path{0, 0, 0}}) {
    EXPECT_EQ(tree.conceded(x, path).error().code, ErrorCode::kInvalidArgument);
  }
}

TEST_F(TreeFile, RefusesEmbeddingsThatDoNotFit) {
  write();
  const auto tree = *Tree::open(path_);
  EXPECT_EQ(tree.descend(std::vector<float>{1}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(tree.descend(std::vector<float>{1, std::nanf("")}).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(TreeFile, DistancesBeyondFloatsRangeEndNoDescent) {
  write();
  EXPECT_EQ(path_of({3e38F, -3e38F}), (Path{0, 0}));  // all centroids are as far: the lower index wins
}

TEST_F(TreeFile, RefusesDamagedFiles) {
  write();
  const auto bytes = testing::read_file(path_);
  for (std::size_t size = 0; size < bytes.size(); size += 7) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(size));
    EXPECT_FALSE(Tree::open(path_)) << size;
  }
  EXPECT_EQ(Tree::open(dir_.file("none")).error().code, ErrorCode::kNotFound);
}

// Another writer may put a tensor of bytes in front: floats that are read where they lie must not be torn then.
TEST_F(TreeFile, ReadsCentroidsThatLieAtAnOddPlace) {
  write();
  const auto bytes = testing::read_file(path_);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  auto header = nlohmann::json::parse(reinterpret_cast<const char*>(bytes.data()) + sizeof length,
                                      reinterpret_cast<const char*>(bytes.data()) + sizeof length + length);
  for (auto& [name, tensor] : header.items()) {
    if (name == "__metadata__") continue;
    for (auto& offset : tensor["data_offsets"]) offset = offset.get<std::uint64_t>() + 1;
  }
  header["first"] = {{"dtype", "U8"}, {"shape", {1}}, {"data_offsets", {0, 1}}};
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t longer = text.size();
  std::ofstream file(path_, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(&longer), sizeof longer);
  file << text << '\0';
  const std::size_t data = sizeof length + length;
  file.write(reinterpret_cast<const char*>(bytes.data() + data), static_cast<std::streamsize>(bytes.size() - data));
  file.close();
  EXPECT_EQ(path_of({-0.5F, 0.2F}), (Path{0, 1}));
}

TEST_F(TreeFile, WriterRefusesWrongShapes) {
  const std::vector<float> centroids = {0, std::numeric_limits<float>::infinity()};
  const std::vector<std::int32_t> documents = {1, 1};
  const std::array<std::span<const float>, 1> c = {centroids};
  const std::array<std::span<const std::int32_t>, 1> n = {documents};
  EXPECT_FALSE(write_tree(path_, 2, 1, c, n));   // not finite
  EXPECT_FALSE(write_tree(path_, 3, 1, c, n));   // not fanout^1 nodes
  EXPECT_FALSE(write_tree(path_, 2, 1, c, {}));  // no counts
}

}  // namespace
}  // namespace edge
