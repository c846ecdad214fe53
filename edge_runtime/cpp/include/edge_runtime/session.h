// One conversation with the native engine: route, fetch, prefill, decode, sample.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/runtime.h"
#include "edge_runtime/sampler.h"

namespace edge {

enum class MemoryMode : std::uint8_t { kFetched = 0, kGeneric = 1, kNone = 2 };

struct GenerateOptions {
  std::optional<std::uint32_t> max_tokens = std::nullopt;       // nullopt takes the bundle's
  std::optional<float> temperature = std::nullopt;              // nullopt takes the bundle's
  SamplingOptions sampling = {};                                // the rest; its temperature is not read
  std::optional<MemoryMode> memory = std::nullopt;              // nullopt: fetched where there is a bank, else none
  std::vector<Node> blocked = {};                               // nodes that routing avoids, each with its subtree
  std::optional<std::vector<std::string>> stop = std::nullopt;  // nullopt takes the bundle's
};

// Of the last generate(), or of the calls since the last reset().
struct SessionStats {
  MemoryMode memory = MemoryMode::kNone;
  std::vector<std::uint64_t> path = {};  // that was routed
  std::uint64_t prompt_tokens = 0;
  std::uint64_t cached_tokens = 0;  // of these, that the KV cache held already
  std::uint64_t generated_tokens = 0;
  double route_ms = 0;
  double fetch_ms = 0;  // until the last byte was verified; negative: it never was
  double stall_ms = 0;  // what of it the engine waited for
  double ttft_ms = 0;
  double decode_tokens_per_s = 0;  // of the tokens after the first; 0 where there are none
  std::uint64_t bytes_read = 0;
  std::uint64_t bank_resident_bytes = 0;
};

// Thread-compatible, but for cancel(), which any thread may call.
class Session {
 public:
  explicit Session(std::shared_ptr<Runtime> runtime);

  const Runtime& runtime() const { return *runtime_; }
  std::size_t position() const { return context_.position(); }  // tokens in the KV cache

  // Begins to read the blocks of these nodes, which later calls compute with; none: without memory. The lease of before
  // is given up in the same step. As BlockingPager::fetch; kUnsupported: there is no bank. What the KV cache holds was
  // computed with other blocks and stays.
  Status fetch(std::span<const Node> nodes);
  // Appends tokens to the KV cache; a call of one token is a decode step. kInvalidArgument: they do not fit, or an id
  // is beyond the vocabulary; kCancelled; whatever reading the memory failed with. After an error the tokens that
  // position() counts are there.
  Status prefill(std::span<const std::uint32_t> tokens);
  // Of the last token; empty in an empty KV cache. Valid until the next call but sample().
  std::span<const float> logits() const { return logits_; }
  // For the samples that follow; the tokens in the KV cache are those that the repetition penalty counts.
  // kInvalidArgument.
  Status set_sampling(const SamplingOptions& options);
  // The next token by logits(); it is not in the KV cache yet. kInvalidArgument: there are no logits.
  Result<std::uint32_t> sample();

  // Answers a prompt in a KV cache emptied before, but for a beginning that it shares with the new prompt under the
  // same blocks. `on_text` takes the text as its characters complete, and ends the answer by returning false.
  // kInvalidArgument: an option, an empty prompt, or one longer than the context; kCancelled; as the calls above.
  Status generate(std::string_view prompt, const GenerateOptions& options,
                  const std::function<bool(std::string_view)>& on_text);

  // Ends the call that another thread has under way, with kCancelled, within a chunk of a prefill or a token; gives up
  // the lease. Without effect where there is none.
  void cancel();

  // Empties the KV cache; the lease stays until the next fetch needs its place.
  void reset();

  const SessionStats& stats() const { return stats_; }

 private:
  class Call;  // under way: what cancel() ends

  Status do_fetch(std::span<const Node> nodes);
  Status do_prefill(std::span<const std::uint32_t> tokens);
  Status do_generate(std::string_view prompt, const GenerateOptions& options,
                     const std::function<bool(std::string_view)>& on_text);
  Result<std::vector<std::uint32_t>> prompt_tokens(std::string_view prompt) const;
  Status fetch_for(std::string_view prompt, const GenerateOptions& options);
  void rewind_to_shared(std::span<const std::uint32_t> tokens);
  void note_lease();

  std::shared_ptr<Runtime> runtime_;
  NativeContext context_;
  std::span<const float> logits_;
  Sampler sampler_;
  SessionStats stats_;
  std::vector<std::uint32_t> tokens_;  // in the KV cache
  std::vector<Node> nodes_;            // of the lease
  std::vector<Node> made_with_;        // that every token in the KV cache was computed with; see mixed_
  bool mixed_ = false;                 // tokens were computed with different blocks: none of them can be used again

  std::mutex lease_mutex_;  // cancel() reads lease_ and busy_ from another thread
  std::shared_ptr<Lease> lease_;
  bool busy_ = false;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace edge
