#include "c_api/handles.h"
#include "edge_runtime/storage.h"

namespace edge::c_api {
namespace {

// As much of the items as there is room for, and how many there are.
template <typename Item, typename Items>
Status hand_out(const Items& items, Item* to, std::size_t capacity, std::size_t* count) {
  if (auto there = require(count != nullptr && (to != nullptr || capacity == 0), "where the result goes"); !there) {
    return there;
  }
  *count = items.size();
  std::copy_n(items.begin(), std::min(capacity, items.size()), to);
  return {};
}

Status check_text(const edge_runtime* runtime, const char* text, std::size_t length) {
  if (auto there = require(runtime != nullptr, "runtime"); !there) return there;
  return require(text != nullptr || length == 0, "text");
}

}  // namespace

std::vector<Node> nodes_of(const edge_node* nodes, std::size_t count) {
  std::vector<Node> all(count);
  std::transform(nodes, nodes + count, all.begin(), [](const edge_node& node) { return Node{node.level, node.index}; });
  return all;
}

}  // namespace edge::c_api

using edge::Status;
using edge::c_api::guarded;

extern "C" {

void edge_runtime_options_init(edge_runtime_options* options) {
  if (options != nullptr) *options = {sizeof(edge_runtime_options), 0, 2, nullptr, nullptr};
}

edge_status edge_runtime_open(const char* bundle, const edge_runtime_options* options, edge_runtime** runtime,
                              edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = edge::c_api::require(bundle != nullptr && runtime != nullptr, "bundle or runtime"); !there) {
      return there;
    }
    edge_runtime_options defaults;
    edge_runtime_options_init(&defaults);
    const auto wanted = edge::c_api::taken(options, defaults);
    if (!wanted) return tl::make_unexpected(wanted.error());
    const std::string storage = wanted->storage == nullptr ? "auto" : wanted->storage;
    const auto kind = edge::parse_storage_kind(storage);
    if (!kind) {
      return edge::fail(edge::ErrorCode::kInvalidArgument,
                        "unknown storage '" + storage + "': use auto, direct, mapped or uring");
    }
    auto opened = edge::Runtime::open(bundle, {.budget = wanted->budget,
                                               .threads = wanted->threads,
                                               .storage = *kind,
                                               .router = wanted->router == nullptr ? "" : wanted->router});
    if (!opened) return tl::make_unexpected(opened.error());
    *runtime = new edge_runtime{std::move(*opened)};
    return {};
  });
}

// NOLINTNEXTLINE(misc-const-correctness): what was handed out is what is taken back
void edge_runtime_close(edge_runtime* runtime) { delete runtime; }

edge_status edge_runtime_get_info(const edge_runtime* runtime, edge_runtime_info* info, edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = edge::c_api::require(runtime != nullptr, "runtime"); !there) return there;
    const edge::Runtime& opened = *runtime->runtime;
    const edge::Bundle& bundle = opened.bundle();
    return edge::c_api::given({.size = 0,
                               .revision = bundle.revision,
                               .vocab_size = bundle.anchor.vocab_size,
                               .context_length = bundle.anchor.context_length,
                               .has_bank = opened.pager() != nullptr,
                               .has_router = opened.has_router(),
                               .bank_bytes = bundle.bank_bytes,
                               .budget_bytes = opened.budget(),
                               .weights_bytes = bundle.weights_bytes,
                               .kv_bytes = opened.model()->kv_bytes()},
                              info);
  });
}

edge_status edge_tokenize(const edge_runtime* runtime, const char* text, size_t length, uint32_t* tokens,
                          size_t capacity, size_t* count, edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = edge::c_api::check_text(runtime, text, length); !there) return there;
    const auto ids = runtime->runtime->tokenizer().encode({text, length});
    if (!ids) return tl::make_unexpected(ids.error());
    return edge::c_api::hand_out(*ids, tokens, capacity, count);
  });
}

edge_status edge_detokenize(const edge_runtime* runtime, const uint32_t* tokens, size_t count, char* text,
                            size_t capacity, size_t* length, edge_error* error) {
  return guarded(error, [&]() -> Status {
    const bool there = runtime != nullptr && (tokens != nullptr || count == 0);
    if (auto given = edge::c_api::require(there, "runtime or tokens"); !given) return given;
    return edge::c_api::hand_out(runtime->runtime->tokenizer().decode({tokens, count}), text, capacity, length);
  });
}

edge_status edge_route(const edge_runtime* runtime, const char* text, size_t length, const edge_node* blocked,
                       size_t blocked_count, edge_node* path, size_t capacity, size_t* count, edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = edge::c_api::check_text(runtime, text, length); !there) return there;
    if (auto there = edge::c_api::require(blocked != nullptr || blocked_count == 0, "blocked"); !there) return there;
    const auto shut = edge::c_api::nodes_of(blocked, blocked_count);
    const auto route = runtime->runtime->route({text, length}, shut);
    if (!route) return tl::make_unexpected(route.error());
    std::vector<edge_node> nodes;
    for (const std::uint64_t index : route->path)
      nodes.push_back({static_cast<std::uint32_t>(nodes.size() + 1), index});
    return edge::c_api::hand_out(nodes, path, capacity, count);
  });
}

}  // extern "C"
