// A bundle made ready for the native engine: tokenizer, router, pager and weights, which sessions share.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/blocking_pager.h"
#include "edge_runtime/bundle.h"
#include "edge_runtime/native.h"
#include "edge_runtime/static_embedder.h"
#include "edge_runtime/tokenizer.h"
#include "edge_runtime/tree.h"

namespace edge {

struct RuntimeOptions {
  std::uint64_t budget = 0;  // bytes of the bank in memory; 0 for two leases
  std::size_t threads = 2;   // of the engine
  StorageKind storage = StorageKind::kAuto;
  std::string router = {};  // which embedder routes; empty takes the default, or the first that the core can run
};

// Immutable; safe to share between threads.
class Runtime {
 public:
  // kInvalidArgument: no threads; as Bundle::open, Tokenizer::open, NativeModel::open, BlockingPager::open, Tree::open
  // and StaticEmbedder::open; kBadFormat where files do not belong together.
  static Result<std::shared_ptr<Runtime>> open(const std::string& directory, const RuntimeOptions& options = {});

  const Bundle& bundle() const { return bundle_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const std::shared_ptr<NativeModel>& model() const { return model_; }
  const std::shared_ptr<BlockingPager>& pager() const { return pager_; }  // null without a bank
  std::uint64_t budget() const { return budget_; }
  bool has_router() const { return routing_.has_value(); }

  // The path of a text; the bundle's blocked nodes and these are avoided. kUnsupported: the bundle has no router that
  // the core can run; kInvalidArgument: no such node; as Tokenizer::encode.
  Result<Route> route(std::string_view text, std::span<const Node> blocked = {}) const;
  // The path's nodes that have memory.
  std::vector<Node> nodes_of(const Route& route) const;

 private:
  struct Routing {
    Tree tree;
    StaticEmbedder embedder;
    Tokenizer tokenizer;
  };

  Runtime(Bundle bundle, Tokenizer tokenizer) : bundle_(std::move(bundle)), tokenizer_(std::move(tokenizer)) {}
  Status open_router(const BundleRouter& router, const std::string& name);

  Bundle bundle_;
  Tokenizer tokenizer_;
  std::shared_ptr<NativeModel> model_;
  std::shared_ptr<BlockingPager> pager_;
  std::optional<Routing> routing_;
  std::uint64_t budget_ = 0;
};

}  // namespace edge
