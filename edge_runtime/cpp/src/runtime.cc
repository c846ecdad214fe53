#include "edge_runtime/runtime.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>

#include "strict_json.h"

namespace edge {

Result<std::shared_ptr<Runtime>> Runtime::open(const std::string& directory, const RuntimeOptions& options) {
  if (options.threads == 0) return fail(ErrorCode::kInvalidArgument, "threads 0: it must be 1 or more");
  auto bundle = Bundle::open(directory);
  if (!bundle) return tl::make_unexpected(bundle.error());
  auto tokenizer = Tokenizer::open(bundle->tokenizer);
  if (!tokenizer) return tl::make_unexpected(tokenizer.error());
  if (tokenizer->vocab_size() != bundle->tokenizer_vocab_size || tokenizer->vocab_size() > bundle->anchor.vocab_size) {
    return fail(ErrorCode::kBadFormat, bundle->tokenizer + ": it has " + std::to_string(tokenizer->vocab_size()) +
                                           " tokens, the manifest says " +
                                           std::to_string(bundle->tokenizer_vocab_size) + " and the anchor " +
                                           std::to_string(bundle->anchor.vocab_size) +
                                           ": take the tokenizer that the anchor was trained with");
  }
  std::shared_ptr<Runtime> runtime(new Runtime(std::move(*bundle), std::move(*tokenizer)));
  const Bundle& opened = runtime->bundle_;
  if (!opened.levels.empty()) {
    runtime->budget_ = options.budget == 0 ? opened.default_budget() : options.budget;
    PagerOptions of_pager;
    of_pager.budget = runtime->budget_;
    of_pager.blocked = opened.blocked;
    of_pager.removed = opened.removed;
    std::vector<std::vector<std::string>> paths;
    paths.reserve(opened.levels.size());
    for (const BundleLevel& level : opened.levels) paths.push_back(level.paths);
    auto pager = BlockingPager::open(paths, options.storage, of_pager);
    if (!pager) {
      // A command that changed the bundle since has unlinked level files of the old revision.
      const auto now = Bundle::open(directory);
      if (now && now->revision != opened.revision) return open(directory, options);
      return tl::make_unexpected(pager.error());
    }
    runtime->pager_ = std::move(*pager);
  }
  if (opened.router) {
    if (auto done = runtime->open_router(*opened.router, options.router); !done)
      return tl::make_unexpected(done.error());
  }
  auto model = NativeModel::open(opened.weights, opened.anchor, options.threads);
  if (!model) return tl::make_unexpected(model.error());
  runtime->model_ = std::move(*model);
#if defined(__GLIBC__)
  ::malloc_trim(0);  // a parsed tokenizer file leaves megabytes of small pieces free, which glibc would keep
#endif
  return runtime;
}

Status Runtime::open_router(const BundleRouter& router, const std::string& name) {
  const std::string& wanted = name.empty() ? router.fallback : name;
  auto found = std::find_if(router.embedders.begin(), router.embedders.end(),
                            [&](const BundleEmbedder& embedder) { return embedder.name == wanted; });
  if (found == router.embedders.end() && name.empty()) found = router.embedders.begin();
  if (found == router.embedders.end()) {
    if (name.empty()) return {};  // it can still answer with generic memory, with none, and with a path from elsewhere
    return fail(ErrorCode::kNotFound, bundle_.directory + ": it has no embedder '" + printable(name) +
                                          "' of the engine static: train a router, or leave the choice to the bundle");
  }
  auto tree = Tree::open(router.tree);
  if (!tree) return tl::make_unexpected(tree.error());
  auto embedder = StaticEmbedder::open(found->path);
  if (!embedder) return tl::make_unexpected(embedder.error());
  auto tokenizer =
      found->tokenizer == bundle_.tokenizer ? Result<Tokenizer>(tokenizer_) : Tokenizer::open(found->tokenizer);
  if (!tokenizer) return tl::make_unexpected(tokenizer.error());
  if (tree->dim() != router.dim || embedder->dim() != router.dim || tokenizer->vocab_size() > embedder->vocab_size()) {
    return fail(ErrorCode::kBadFormat, found->path +
                                           ": it does not fit the tree or its tokenizer: take the embedder "
                                           "that was trained with them");
  }
  routing_ = Routing{std::move(*tree), std::move(*embedder), std::move(*tokenizer)};
  return {};
}

Result<Route> Runtime::route(std::string_view text, std::span<const Node> blocked) const {
  if (!routing_) {
    return fail(ErrorCode::kUnsupported,
                bundle_.directory + ": it has no router of the engine static: ask for memory 'generic' or 'none'");
  }
  const Tree& tree = routing_->tree;
  std::vector<Node> shut = bundle_.blocked;
  for (const Node& node : blocked) {
    std::uint64_t nodes = 1;
    for (std::uint32_t l = 0; l < std::min(node.level, tree.depth()); ++l) nodes *= tree.fanout();
    if (node.level < 1 || node.level > tree.depth() || node.index >= nodes) {
      return fail(ErrorCode::kInvalidArgument, "blocked node " + std::to_string(node.level) + ":" +
                                                   std::to_string(node.index) + ": the tree has levels 1.." +
                                                   std::to_string(tree.depth()));
    }
    shut.push_back(node);
  }
  const auto ids = routing_->tokenizer.encode(text);
  if (!ids) return tl::make_unexpected(ids.error());
  std::vector<float> embedding(routing_->embedder.dim());
  if (auto done = routing_->embedder.embed(*ids, embedding); !done) return tl::make_unexpected(done.error());
  return tree.descend(embedding, shut);
}

std::vector<Node> Runtime::nodes_of(const Route& route) const {
  std::vector<Node> nodes;
  for (std::size_t i = 0; i < route.path.size(); ++i) {
    const Node node{static_cast<std::uint32_t>(i + 1), route.path[i]};
    const bool removed = std::find(bundle_.removed.begin(), bundle_.removed.end(), node) != bundle_.removed.end();
    if (bundle_.level(node.level) != nullptr && !removed) nodes.push_back(node);
  }
  return nodes;
}

}  // namespace edge
