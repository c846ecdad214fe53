// What the C ABI's functions share: its handles, and how a call's result leaves the library.
#pragma once

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "edge_runtime/edge_runtime.h"
#include "edge_runtime/session.h"

// The C ABI's names, at global scope as C has them.
struct edge_runtime {  // NOLINT(readability-identifier-naming)
  std::shared_ptr<edge::Runtime> runtime;
};

struct edge_session {  // NOLINT(readability-identifier-naming)
  explicit edge_session(std::shared_ptr<edge::Runtime> runtime) : session(std::move(runtime)) {}
  edge::Session session;
};

namespace edge::c_api {

edge_status report(const Error& failed, edge_error* error);

// Runs a body that returns a Status. Allocation is all that can throw below, and nothing may throw beyond.
template <typename Body>
edge_status guarded(edge_error* error, Body&& body) {
  try {
    const Status status = body();
    return status ? EDGE_OK : report(status.error(), error);
  } catch (const std::bad_alloc&) {
    return report({ErrorCode::kIo, "out of memory", 0}, error);
  } catch (const std::exception& thrown) {
    return report({ErrorCode::kIo, thrown.what(), 0}, error);
  }
}

// A struct that the caller fills, of a newer or an older header, as this library's: what it lacks keeps the defaults.
template <typename Options>
Result<Options> taken(const Options* given, Options defaults) {
  if (given == nullptr) return defaults;
  if (given->size < sizeof(std::size_t)) {
    return fail(ErrorCode::kInvalidArgument, "a struct without its size: fill it with its edge_*_init function");
  }
  std::memcpy(&defaults, given, std::min(given->size, sizeof(Options)));
  return defaults;
}

// The other way: as much as the caller has room for. Its own size stays.
template <typename Filled>
Status given(Filled filled, Filled* to) {
  if (to == nullptr || to->size < sizeof(std::size_t)) {
    return fail(ErrorCode::kInvalidArgument, "a struct without its size: set `size` to sizeof of it");
  }
  filled.size = to->size;
  std::memcpy(to, &filled, std::min(to->size, sizeof(Filled)));
  return {};
}

inline Status require(bool holds, const char* what) {
  return holds ? Status() : fail(ErrorCode::kInvalidArgument, std::string(what) + " is NULL");
}

std::vector<Node> nodes_of(const edge_node* nodes, std::size_t count);
Result<SamplingOptions> sampling_of(const edge_sampling* sampling);

}  // namespace edge::c_api
