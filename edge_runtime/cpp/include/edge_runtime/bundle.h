// Opens a bundle (docs/bundle-format.md): what its manifest says, and what its state file shuts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "edge_runtime/native_config.h"
#include "edge_runtime/node.h"
#include "edge_runtime/result.h"

namespace edge {

struct BundleLevel {
  std::uint32_t level = 0;
  std::uint64_t block_bytes = 0;
  std::vector<std::string> paths;  // the base first, overlays after it
};

// An embedder of the engine `static`: tables over token ids.
struct BundleEmbedder {
  std::string name;
  std::string path;
  std::string tokenizer;  // path
};

struct BundleRouter {
  std::string tree;  // path
  std::uint32_t dim = 0;
  std::vector<BundleEmbedder> embedders;  // those of the engine `static` alone
  std::string fallback;                   // the name of the default embedder, which may be of another engine
};

// All paths are joined to the directory.
struct Bundle {
  // kNotFound, kIo, kTruncated, kBadFormat, kUnsupported: the manifest or a file that it names; kUnsupported also where
  // there is no program for the native engine.
  static Result<Bundle> open(const std::string& directory);

  std::string directory;
  std::string name;
  std::uint64_t revision = 0;
  NativeConfig anchor;
  std::string weights;  // path of the native program
  std::uint64_t weights_bytes = 0;
  std::string tokenizer;  // path
  std::uint64_t tokenizer_vocab_size = 0;
  std::optional<std::uint32_t> bos;
  std::vector<std::uint32_t> eos;
  bool add_bos = false;
  std::uint32_t max_tokens = 0;
  float temperature = 0;
  std::vector<std::string> stop;
  std::vector<BundleLevel> levels;  // of the memory bank; none without one
  std::uint64_t bank_bytes = 0;
  std::optional<BundleRouter> router;
  std::vector<Node> blocked;
  std::vector<Node> removed;

  const BundleLevel* level(std::uint32_t number) const;  // null where it has no memory
  // Of two leases: a path, or the generic memory where that is larger. 0 without a bank.
  std::uint64_t default_budget() const;
};

}  // namespace edge
