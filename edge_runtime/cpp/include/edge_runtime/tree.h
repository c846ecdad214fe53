// The router's tree of centroids and its greedy descent (Pouransari et al. 2025, section 2.1 and appendix C).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "edge_runtime/node.h"
#include "edge_runtime/result.h"

namespace edge {

class ByteSource;   // src/byte_source.h
class MappedBytes;  // src/mapped_bytes.h

struct Route {
  std::vector<std::uint64_t> path;  // path[l - 1]: the chosen node of level l
  // margins[l - 1]: squared distance of the runner-up among the siblings, less the chosen one's; infinity for an only
  // child.
  std::vector<float> margins;
};

// A path and what it concedes to the greedy choice: the sum over its nodes of the squared distance beyond that of the
// nearest open sibling. The greedy path concedes 0.
struct RankedPath {
  std::vector<std::uint64_t> path;
  float conceded = 0;
};

// Immutable after open; safe to share between threads.
class Tree {
 public:
  // Reads docs/bundle-format.md's router/tree.safetensors. kNotFound, kIo, kTruncated, kBadFormat, kUnsupported.
  // The centroids stay in the file, which is mapped: a descent reads a few of them. REQUIRES that the file is never
  // written to, only replaced.
  static Result<Tree> open(const std::string& path);
  // The same of bytes that lie anywhere, which are copied: the seam for fuzzing.
  static Result<Tree> read(const ByteSource& source);

  std::uint32_t fanout() const { return fanout_; }
  std::uint32_t depth() const { return static_cast<std::uint32_t>(centroids_.size()); }
  std::uint32_t dim() const { return dim_; }

  // The nearest child at every level, in squared Euclidean distance, among those that are neither empty nor blocked;
  // the lower index wins a tie. Ends at `depth` levels, or earlier where no child is left. Blocking a node blocks its
  // subtree. kInvalidArgument where the embedding has another dimension or a value that is not finite.
  Result<Route> descend(std::span<const float> embedding, std::span<const Node> blocked = {},
                        std::optional<std::uint32_t> depth = std::nullopt) const;

  // The `count` paths that concede least, in that order, the greedy one first; on a tie the path that is smaller at the
  // first level where the two differ. Fewer where the tree has fewer. Blocked, empty and depth as in descend.
  // kInvalidArgument also where count is 0 or above kMostPaths.
  static constexpr std::size_t kMostPaths = 256;
  Result<std::vector<RankedPath>> rank(std::span<const float> embedding, std::size_t count,
                                       std::span<const Node> blocked = {},
                                       std::optional<std::uint32_t> depth = std::nullopt) const;

  // What this path concedes, infinity where one of its nodes is blocked or empty. kInvalidArgument where the path is
  // none of this tree, or the embedding as in descend.
  Result<float> conceded(std::span<const float> embedding, std::span<const std::uint64_t> path,
                         std::span<const Node> blocked = {}) const;

 private:
  Tree() = default;
  // data: the source's bytes where they stay, which `held` keeps, or null: then they are copied.
  static Result<Tree> read(const ByteSource& source, const std::byte* data, std::shared_ptr<const void> held);
  Status check_embedding(std::span<const float> embedding) const;
  // Squared distances to the children of `parent`, which are of level `level`; infinity where a child may not be
  // chosen.
  std::vector<double> distances(std::span<const float> embedding, std::uint32_t level, std::uint64_t parent,
                                std::span<const Node> blocked) const;
  std::uint32_t fanout_ = 0;
  std::uint32_t dim_ = 0;
  std::vector<std::span<const float>> centroids_;  // a level each: [fanout^l, dim]
  std::shared_ptr<const void> held_;               // what the centroids lie in
  const MappedBytes* mapped_ = nullptr;            // the file in it, where they stay in one
  std::vector<std::vector<std::int32_t>> documents_;
};

// Writes the file that Tree::open reads: centroids[l - 1] is [fanout^l, dim], documents[l - 1] is [fanout^l]. The file
// appears whole or not at all. kInvalidArgument, kIo.
Status write_tree(const std::string& path, std::uint32_t fanout, std::uint32_t dim,
                  std::span<const std::span<const float>> centroids,
                  std::span<const std::span<const std::int32_t>> documents);

}  // namespace edge
