#include "c_api/handles.h"

namespace edge::c_api {
namespace {

Status require_session(const edge_session* session) { return require(session != nullptr, "session"); }

Result<GenerateOptions> options_of(const edge_generate_options* given) {
  edge_generate_options defaults;
  edge_generate_options_init(&defaults);
  const auto wanted = taken(given, defaults);
  if (!wanted) return tl::make_unexpected(wanted.error());
  if (wanted->memory < EDGE_MEMORY_AUTO || wanted->memory > EDGE_MEMORY_NONE) {
    return fail(ErrorCode::kInvalidArgument, "memory " + std::to_string(wanted->memory) + ": it is no edge_memory");
  }
  if ((wanted->blocked == nullptr && wanted->blocked_count != 0) ||
      std::any_of(wanted->stop, wanted->stop + (wanted->stop == nullptr ? 0 : wanted->stop_count),
                  [](const char* text) { return text == nullptr; })) {
    return fail(ErrorCode::kInvalidArgument, "blocked or a stop text is NULL");
  }
  GenerateOptions options;
  if (wanted->sampling != nullptr) {
    auto sampling = sampling_of(wanted->sampling);
    if (!sampling) return tl::make_unexpected(sampling.error());
    options.sampling = *sampling;
    // NaN, which is neither, goes on to be refused.
    if (!(sampling->temperature < 0)) options.temperature = sampling->temperature;
  }
  if (wanted->max_tokens != 0) options.max_tokens = wanted->max_tokens;
  if (wanted->memory != EDGE_MEMORY_AUTO) options.memory = static_cast<MemoryMode>(wanted->memory);
  options.blocked = nodes_of(wanted->blocked, wanted->blocked_count);
  if (wanted->stop != nullptr) options.stop = std::vector<std::string>(wanted->stop, wanted->stop + wanted->stop_count);
  return options;
}

edge_stats stats_of(const Session& session) {
  const SessionStats& stats = session.stats();
  edge_stats filled{};
  filled.prompt_tokens = stats.prompt_tokens;
  filled.cached_tokens = stats.cached_tokens;
  filled.generated_tokens = stats.generated_tokens;
  filled.route_ms = stats.route_ms;
  filled.fetch_ms = stats.fetch_ms;
  filled.stall_ms = stats.stall_ms;
  filled.ttft_ms = stats.ttft_ms;
  filled.decode_tokens_per_s = stats.decode_tokens_per_s;
  filled.bytes_read = stats.bytes_read;
  filled.bank_resident_bytes = stats.bank_resident_bytes;
  const std::size_t length = std::min(stats.path.size(), std::size(filled.path));
  filled.path_length = static_cast<std::uint32_t>(length);
  filled.position = static_cast<std::uint32_t>(session.position());
  std::copy_n(stats.path.begin(), length, filled.path);
  return filled;
}

}  // namespace

Result<SamplingOptions> sampling_of(const edge_sampling* sampling) {
  edge_sampling defaults;
  edge_sampling_init(&defaults);
  const auto wanted = taken(sampling, defaults);
  if (!wanted) return tl::make_unexpected(wanted.error());
  return SamplingOptions{.repetition_penalty = wanted->repetition_penalty,
                         .temperature = wanted->temperature,
                         .top_k = wanted->top_k,
                         .top_p = wanted->top_p,
                         .min_p = wanted->min_p,
                         .seed = wanted->seed};
}

}  // namespace edge::c_api

using edge::Status;
using edge::c_api::guarded;
using edge::c_api::require_session;

extern "C" {

edge_status edge_session_new(const edge_runtime* runtime, edge_session** session, edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = edge::c_api::require(runtime != nullptr && session != nullptr, "runtime or session"); !there) {
      return there;
    }
    *session = new edge_session(runtime->runtime);
    return {};
  });
}

// NOLINTNEXTLINE(misc-const-correctness): the signature is the C header's
void edge_session_free(edge_session* session) { delete session; }

void edge_session_reset(edge_session* session) {
  if (session != nullptr) session->session.reset();
}

edge_status edge_session_fetch(edge_session* session, const edge_node* nodes, size_t count, edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = require_session(session); !there) return there;
    if (auto there = edge::c_api::require(nodes != nullptr || count == 0, "nodes"); !there) return there;
    return session->session.fetch(edge::c_api::nodes_of(nodes, count));
  });
}

edge_status edge_session_prefill(edge_session* session, const uint32_t* tokens, size_t count, edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = require_session(session); !there) return there;
    if (auto there = edge::c_api::require(tokens != nullptr || count == 0, "tokens"); !there) return there;
    return session->session.prefill({tokens, count});
  });
}

edge_status edge_session_decode(edge_session* session, uint32_t token, edge_error* error) {
  return edge_session_prefill(session, &token, 1, error);
}

const float* edge_session_logits(const edge_session* session) {
  return session == nullptr || session->session.logits().empty() ? nullptr : session->session.logits().data();
}

void edge_sampling_init(edge_sampling* sampling) {
  if (sampling != nullptr) *sampling = {sizeof(edge_sampling), 0, 0, 1, 0, 1, 0};
}

edge_status edge_session_set_sampling(edge_session* session, const edge_sampling* sampling, edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = require_session(session); !there) return there;
    const auto options = edge::c_api::sampling_of(sampling);
    if (!options) return tl::make_unexpected(options.error());
    return session->session.set_sampling(*options);
  });
}

edge_status edge_session_sample(edge_session* session, uint32_t* token, edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = edge::c_api::require(session != nullptr && token != nullptr, "session or token"); !there) {
      return there;
    }
    const auto sampled = session->session.sample();
    if (!sampled) return tl::make_unexpected(sampled.error());
    *token = *sampled;
    return {};
  });
}

void edge_generate_options_init(edge_generate_options* options) {
  if (options == nullptr) return;
  *options = {};
  options->size = sizeof *options;
  options->memory = EDGE_MEMORY_AUTO;
}

edge_status edge_session_generate(edge_session* session, const char* prompt, size_t length,
                                  const edge_generate_options* options, edge_text_callback on_text, void* user,
                                  edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = require_session(session); !there) return there;
    if (auto there = edge::c_api::require(prompt != nullptr && on_text != nullptr, "prompt or callback"); !there) {
      return there;
    }
    const auto wanted = edge::c_api::options_of(options);
    if (!wanted) return tl::make_unexpected(wanted.error());
    return session->session.generate(
        {prompt, length}, *wanted, [&](std::string_view text) { return on_text(user, text.data(), text.size()) == 0; });
  });
}

void edge_session_cancel(edge_session* session) {
  if (session != nullptr) session->session.cancel();
}

edge_status edge_session_get_stats(const edge_session* session, edge_stats* stats, edge_error* error) {
  return guarded(error, [&]() -> Status {
    if (auto there = require_session(session); !there) return there;
    return edge::c_api::given(edge::c_api::stats_of(session->session), stats);
  });
}

}  // extern "C"
