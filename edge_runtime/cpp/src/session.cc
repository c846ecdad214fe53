#include "edge_runtime/session.h"

#include <algorithm>
#include <chrono>

#include "edge_runtime/stop_texts.h"
#include "text/utf8.h"

namespace edge {
namespace {

// A cancelled prefill ends between two of these, which are the engine's own passes.
constexpr std::size_t kChunk = 128;

class Stopwatch {
 public:
  double ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

tl::unexpected<Error> cancelled() { return fail(ErrorCode::kCancelled, "the call was cancelled"); }

}  // namespace

// Marks a call as one that cancel() ends, and gives up the lease of one that was.
class Session::Call {
 public:
  explicit Call(Session& session) : session_(session) {
    const std::scoped_lock lock(session.lease_mutex_);
    session.cancelled_ = false;
    session.busy_ = true;
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() {
    const std::scoped_lock lock(session_.lease_mutex_);
    session_.busy_ = false;
    if (!session_.cancelled_) return;
    session_.lease_ = nullptr;
    session_.nodes_.clear();
  }

 private:
  Session& session_;
};

Session::Session(std::shared_ptr<Runtime> runtime)
    : runtime_(std::move(runtime)), context_(runtime_->model()), sampler_(*Sampler::create({})) {}

void Session::cancel() {
  const std::scoped_lock lock(lease_mutex_);
  if (!busy_) return;
  cancelled_ = true;
  if (lease_ != nullptr) lease_->cancel();
}

void Session::reset() {
  context_.reset();
  tokens_.clear();
  logits_ = {};
  stats_ = {};
  mixed_ = false;
}

Status Session::fetch(std::span<const Node> nodes) {
  const Call call(*this);
  return do_fetch(nodes);
}

Status Session::do_fetch(std::span<const Node> nodes) {
  std::shared_ptr<Lease> next;
  if (!nodes.empty()) {
    const auto& pager = runtime_->pager();
    if (pager == nullptr) {
      return fail(ErrorCode::kUnsupported,
                  runtime_->bundle().directory + ": it has no memory bank: ask for memory 'none'");
    }
    // The old lease goes in the same step: a change of topic needs no double budget.
    auto lease = pager->fetch(nodes, lease_);
    if (!lease) return tl::make_unexpected(lease.error());
    next = std::move(*lease);
    stats_.bytes_read += next->bytes_read();
  }
  const std::scoped_lock lock(lease_mutex_);
  lease_ = std::move(next);
  nodes_.assign(nodes.begin(), nodes.end());
  return cancelled_ ? Status(cancelled()) : Status();
}

Status Session::prefill(std::span<const std::uint32_t> tokens) {
  const Call call(*this);
  auto done = do_prefill(tokens);
  if (done) note_lease();
  return done;
}

Status Session::do_prefill(std::span<const std::uint32_t> tokens) {
  if (tokens.empty()) return fail(ErrorCode::kInvalidArgument, "no tokens: a call takes at least one");
  const std::size_t left = runtime_->bundle().anchor.context_length - context_.position();
  if (tokens.size() > left) {
    return fail(ErrorCode::kInvalidArgument,
                std::to_string(tokens.size()) + " tokens, and " + std::to_string(left) + " are left of the context's " +
                    std::to_string(runtime_->bundle().anchor.context_length) + ": shorten the prompt");
  }
  if (tokens_.empty()) {
    made_with_ = nodes_;
  } else if (made_with_ != nodes_) {
    mixed_ = true;
  }
  const std::vector<std::int64_t> ids(tokens.begin(), tokens.end());
  for (std::size_t at = 0; at < ids.size(); at += kChunk) {
    if (cancelled_) return cancelled();
    const auto chunk = std::span(ids).subspan(at, std::min(kChunk, ids.size() - at));
    auto logits = context_.forward(chunk, lease_ == nullptr ? 0 : lease_->handle());
    logits_ = logits ? *logits : std::span<const float>();
    if (!logits) return cancelled_ ? Status(cancelled()) : Status(tl::make_unexpected(logits.error()));
    const auto done = tokens.subspan(at, chunk.size());
    tokens_.insert(tokens_.end(), done.begin(), done.end());
    sampler_.accept(done);
  }
  return {};
}

Status Session::set_sampling(const SamplingOptions& options) {
  auto sampler = Sampler::create(options);
  if (!sampler) return tl::make_unexpected(sampler.error());
  sampler_ = std::move(*sampler);
  sampler_.accept(tokens_);
  return {};
}

Result<std::uint32_t> Session::sample() {
  if (logits_.empty()) return fail(ErrorCode::kInvalidArgument, "nothing to sample from: prefill first");
  return sampler_.sample(logits_);
}

Result<std::vector<std::uint32_t>> Session::prompt_tokens(std::string_view prompt) const {
  const Bundle& bundle = runtime_->bundle();
  auto ids = runtime_->tokenizer().encode(prompt);
  if (!ids) return ids;
  if (bundle.add_bos && bundle.bos && (ids->empty() || ids->front() != *bundle.bos)) {
    ids->insert(ids->begin(), *bundle.bos);
  }
  if (ids->empty()) return fail(ErrorCode::kInvalidArgument, "the prompt is empty");
  if (ids->size() > bundle.anchor.context_length) {
    return fail(ErrorCode::kInvalidArgument, "the prompt has " + std::to_string(ids->size()) +
                                                 " tokens, and the context holds " +
                                                 std::to_string(bundle.anchor.context_length) + ": shorten it");
  }
  return ids;
}

Status Session::fetch_for(std::string_view prompt, const GenerateOptions& options) {
  const bool has_bank = runtime_->pager() != nullptr;
  stats_.memory = options.memory.value_or(has_bank ? MemoryMode::kFetched : MemoryMode::kNone);
  if (stats_.memory == MemoryMode::kNone) return do_fetch({});
  if (stats_.memory == MemoryMode::kGeneric) return do_fetch(std::vector<Node>{{0, 0}});
  const Stopwatch watch;
  const auto route = runtime_->route(prompt, options.blocked);
  if (!route) return tl::make_unexpected(route.error());
  stats_.route_ms = watch.ms();
  stats_.path = route->path;
  const auto nodes = runtime_->nodes_of(*route);
  return do_fetch(nodes);
}

void Session::rewind_to_shared(std::span<const std::uint32_t> tokens) {
  std::size_t shared = 0;
  if (!mixed_ && made_with_ == nodes_) {
    // One token at least is computed: its logits are wanted.
    const std::size_t most = std::min(tokens_.size(), tokens.size() - 1);
    while (shared < most && tokens_[shared] == tokens[shared]) ++shared;
  }
  context_.rewind(shared);
  tokens_.resize(shared);
  mixed_ = false;
  stats_.cached_tokens = shared;
}

void Session::note_lease() {
  if (lease_ == nullptr) return;
  const auto fetch_ns = lease_->fetch_ns();
  stats_.fetch_ms = fetch_ns ? static_cast<double>(*fetch_ns) / 1e6 : -1;
  stats_.stall_ms = static_cast<double>(lease_->stall_ns()) / 1e6;
}

Status Session::generate(std::string_view prompt, const GenerateOptions& options,
                         const std::function<bool(std::string_view)>& on_text) {
  const Call call(*this);
  stats_ = {};
  auto done = do_generate(prompt, options, on_text);
  note_lease();
  if (runtime_->pager() != nullptr) stats_.bank_resident_bytes = runtime_->pager()->stats().pager.resident_bytes;
  return done;
}

Status Session::do_generate(std::string_view prompt, const GenerateOptions& options,
                            const std::function<bool(std::string_view)>& on_text) {
  const Stopwatch watch;
  const Bundle& bundle = runtime_->bundle();
  const auto most = options.max_tokens.value_or(bundle.max_tokens);
  if (most == 0) return fail(ErrorCode::kInvalidArgument, "max_tokens 0: it must be 1 or more");
  const auto stops = options.stop.value_or(bundle.stop);
  if (std::find(stops.begin(), stops.end(), "") != stops.end()) {
    return fail(ErrorCode::kInvalidArgument, "a stop text is empty");
  }
  SamplingOptions sampling = options.sampling;
  sampling.temperature = options.temperature.value_or(bundle.temperature);
  auto sampler = Sampler::create(sampling);
  if (!sampler) return tl::make_unexpected(sampler.error());
  const std::string text = text::readable(prompt);
  const auto ids = prompt_tokens(text);
  if (!ids) return tl::make_unexpected(ids.error());
  if (auto fetched = fetch_for(text, options); !fetched) return fetched;
  rewind_to_shared(*ids);
  stats_.prompt_tokens = ids->size();
  sampler_ = std::move(*sampler);
  sampler_.accept(tokens_);
  if (auto done = do_prefill(std::span(*ids).subspan(tokens_.size())); !done) return done;

  TextStream pieces(runtime_->tokenizer(), /*follows=*/true);
  StopTexts stop(stops);
  double first_ms = 0;
  while (true) {
    const std::uint32_t token = sampler_.sample(logits_);
    const double now = watch.ms();
    if (++stats_.generated_tokens == 1) {
      stats_.ttft_ms = first_ms = now;
    } else {
      stats_.decode_tokens_per_s = static_cast<double>(stats_.generated_tokens - 1) / (now - first_ms) * 1e3;
    }
    if (std::find(bundle.eos.begin(), bundle.eos.end(), token) != bundle.eos.end()) break;
    const std::string shown = stop.push(pieces.push(token));
    if (!shown.empty() && !on_text(shown)) return {};
    if (stop.reached() || stats_.generated_tokens == most || context_.position() == bundle.anchor.context_length) break;
    if (auto done = do_prefill({&token, 1}); !done) return done;
  }
  if (stop.reached()) return {};
  const std::string rest = stop.push(pieces.flush()) + stop.flush();
  if (!rest.empty()) on_text(rest);
  return {};
}

}  // namespace edge
