#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "edge_runtime/lease_registry.h"
#include "edge_runtime/memory_ffn.h"
#include "edge_runtime/native.h"
#include "native/arithmetic.h"
#include "native/attention.h"
#include "native/limits.h"
#include "native/projection.h"
#include "native/thread_team.h"
#include "native/weights.h"

namespace edge {

struct NativeModel::Impl {
  Impl(native::Weights opened, std::size_t threads) : weights(std::move(opened)), team(threads) {}

  // Rounding keys and values to f16 costs as much as rounding float weights to it, and far less than quantising them.
  DType kv_dtype() const {
    const DType dtype = weights.layers.front().qkv.dtype;
    return dtype == DType::kI8 || dtype == DType::kI4 ? DType::kF16 : DType::kF32;
  }

  native::Weights weights;
  std::mutex mutex;  // of the team
  native::ThreadTeam team;
};

NativeModel::NativeModel(NativeConfig config, std::unique_ptr<Impl> impl)
    : config_(std::move(config)), impl_(std::move(impl)) {}

NativeModel::~NativeModel() = default;

std::uint64_t NativeModel::kv_bytes() const { return native::KvCache::bytes(config_, impl_->kv_dtype()); }

Result<std::shared_ptr<NativeModel>> NativeModel::open(const std::string& path, const NativeConfig& config,
                                                       std::size_t threads) {
  constexpr std::size_t kMostThreads = 1024;
  if (threads == 0 || threads > kMostThreads) {
    return fail(ErrorCode::kInvalidArgument, std::to_string(threads) + " threads: take 1 to 1024");
  }
  auto weights = native::Weights::open(path, config);
  if (!weights) return tl::make_unexpected(std::move(weights.error()));
  auto impl = std::make_unique<Impl>(std::move(*weights), threads);
  return std::shared_ptr<NativeModel>(new NativeModel(config, std::move(impl)));
}

// What a call works with. Buffers grow with the longest chunk of tokens so far.
struct NativeContext::Impl {
  Impl(const NativeConfig& of, NativeModel::Impl& model)
      : config(of),
        weights(model.weights),
        parallel(model.team),
        kernels(kernels::active_kernels()),
        project(kernels, parallel),
        cache(of, model.kv_dtype()),
        logits(of.vocab_size) {}

  void embed(std::span<const std::int64_t> tokens);
  void attention(std::size_t layer, std::size_t tokens, std::size_t position);
  Status ffn(std::size_t layer, std::size_t tokens, MemorySource* memory, std::uint32_t slot);
  Status through_layers(std::size_t tokens, std::size_t position, MemorySource* memory);
  void head(std::size_t last);

  const NativeConfig& config;
  const native::Weights& weights;
  Parallel& parallel;
  const kernels::Kernels& kernels;
  native::Projection project;
  native::KvCache cache;
  std::vector<native::Rotation> rotations;  // a token of the chunk
  std::vector<float> stream;                // [tokens, d]: the residual stream
  std::vector<float> normed;                // [tokens, d]
  std::vector<float> qkv;
  std::vector<float> queries;
  std::vector<float> attended;
  std::vector<float> added;  // [tokens, d]: what a branch adds to the stream
  std::vector<MemoryRows> neurons;
  std::vector<MemoryRows> leased;
  std::vector<float> scratch;
  std::vector<float> logits;
};

void NativeContext::Impl::embed(std::span<const std::int64_t> tokens) {
  const std::size_t d = config.d_model;
  const native::Matrix& table = weights.embedding;
  const std::size_t bytes = row_bytes(table.dtype, d);
  const std::size_t scale_bytes = row_scale_bytes(table.dtype, d);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const auto row = static_cast<std::size_t>(tokens[t]);
    dequantize_row(table.dtype, table.data + row * bytes,
                   table.scales == nullptr ? nullptr : table.scales + row * scale_bytes, {stream.data() + t * d, d});
  }
}

void NativeContext::Impl::attention(std::size_t layer, std::size_t tokens, std::size_t position) {
  const native::Layer& of = weights.layers[layer];
  const std::size_t query_width = config.query_width();
  const std::size_t kv_width = config.kv_width();
  const std::size_t dim = config.head_dim;
  project(of.qkv, normed.data(), tokens, qkv.data());
  for (std::size_t t = 0; t < tokens; ++t) {
    float* const query = qkv.data() + t * (query_width + 2 * kv_width);
    float* const key = query + query_width;
    const float* const value = key + kv_width;
    if (config.qk_norm) {
      native::normalise(query, of.q_norm, query_width, config.norm_eps, config.centred_norm, query);
      native::normalise(key, of.k_norm, kv_width, config.norm_eps, config.centred_norm, key);
    }
    for (std::size_t head = 0; head < config.heads; ++head) rotations[t].apply(query + head * dim);
    std::copy_n(query, query_width, queries.data() + t * query_width);
    for (std::size_t head = 0; head < config.kv_heads; ++head) {
      rotations[t].apply(key + head * dim);
      cache.store(cache.keys(layer, head), position + t, key + head * dim);
      cache.store(cache.values(layer, head), position + t, value + head * dim);
    }
  }
  native::attend(kernels, config, cache, layer, queries.data(), tokens, position, attended.data(), parallel);
  project(of.attention_out, attended.data(), tokens, added.data());
}

Status NativeContext::Impl::ffn(std::size_t layer, std::size_t tokens, MemorySource* memory, std::uint32_t slot) {
  const native::Matrix& of = weights.layers[layer].ffn;
  neurons.assign(1, {of.dtype, config.ffn_dim, of.data, of.scales});
  if (memory != nullptr) {
    if (auto status = memory->layer(slot, leased); !status) return status;
    neurons.insert(neurons.end(), leased.begin(), leased.end());
  }
  const std::size_t needed = memory_ffn_scratch(neurons, tokens, config.d_model);
  if (scratch.size() < needed) scratch.resize(needed);
  memory_ffn(neurons, normed.data(), tokens, config.d_model, added.data(), scratch, parallel);
  return {};
}

Status NativeContext::Impl::through_layers(std::size_t tokens, std::size_t position, MemorySource* memory) {
  const std::size_t d = config.d_model;
  const auto normalise_all = [&](const float* gains) {
    for (std::size_t t = 0; t < tokens; ++t) {
      native::normalise(stream.data() + t * d, gains, d, config.norm_eps, config.centred_norm, normed.data() + t * d);
    }
  };
  auto carrier = config.memory_layers.begin();
  for (std::size_t layer = 0; layer < config.layers; ++layer) {
    normalise_all(weights.layers[layer].attention_norm);
    attention(layer, tokens, position);
    native::add_to(stream.data(), added.data(), tokens * d);
    normalise_all(weights.layers[layer].ffn_norm);
    const bool carries = carrier != config.memory_layers.end() && *carrier == layer;
    const auto slot = static_cast<std::uint32_t>(carrier - config.memory_layers.begin());
    if (auto status = ffn(layer, tokens, carries ? memory : nullptr, slot); !status) return status;
    if (carries) ++carrier;
    native::add_to(stream.data(), added.data(), tokens * d);
  }
  return {};
}

void NativeContext::Impl::head(std::size_t last) {
  const std::size_t d = config.d_model;
  native::normalise(stream.data() + last * d, weights.norm, d, config.norm_eps, config.centred_norm, normed.data());
  project(weights.head, normed.data(), 1, logits.data());
}

NativeContext::NativeContext(std::shared_ptr<NativeModel> model)
    : model_(std::move(model)), impl_(std::make_unique<Impl>(model_->config(), *model_->impl_)) {}

NativeContext::~NativeContext() = default;

Result<std::span<const float>> NativeContext::forward(std::span<const std::int64_t> tokens, std::int64_t memory) {
  const NativeConfig& config = model_->config();
  if (tokens.empty() || tokens.size() > config.context_length - position_) {
    return fail(ErrorCode::kInvalidArgument,
                std::to_string(tokens.size()) + " tokens after " + std::to_string(position_) +
                    ": a call takes at least one, and the context ends at " + std::to_string(config.context_length));
  }
  for (const std::int64_t token : tokens) {
    if (token < 0 || token >= config.vocab_size) {
      return fail(ErrorCode::kInvalidArgument, "token " + std::to_string(token) + ": the anchor knows 0 to " +
                                                   std::to_string(config.vocab_size - 1));
    }
  }
  std::shared_ptr<MemorySource> source;
  if (memory != 0) {
    auto found = find_source(memory);
    if (!found) return tl::make_unexpected(std::move(found.error()));
    source = std::move(*found);
    if (source->layers() != config.memory_layers.size() || source->d_model() != config.d_model) {
      return fail(ErrorCode::kInvalidArgument, "the lease has " + std::to_string(source->layers()) +
                                                   " layers of width " + std::to_string(source->d_model()) +
                                                   ": use the bank of this anchor");
    }
  }
  Impl& work = *impl_;
  const std::scoped_lock lock(model_->impl_->mutex);
  std::size_t position = position_;
  for (std::size_t first = 0; first < tokens.size(); first += native::kPrefill) {
    const std::size_t count = std::min(native::kPrefill, tokens.size() - first);
    if (count > work.rotations.size()) {
      work.rotations.assign(count, native::Rotation(config.head_dim, config.rope_theta));
      for (auto* const of_width_d : {&work.stream, &work.normed, &work.added})
        of_width_d->resize(count * config.d_model);
      work.qkv.resize(count * (config.query_width() + 2 * config.kv_width()));
      work.queries.resize(count * config.query_width());
      work.attended.resize(count * config.query_width());
    }
    for (std::size_t t = 0; t < count; ++t) work.rotations[t].turn_to(position + t);
    work.embed(tokens.subspan(first, count));
    if (auto status = work.through_layers(count, position, source.get()); !status) {
      return tl::make_unexpected(std::move(status.error()));
    }
    position += count;
    if (position == position_ + tokens.size()) work.head(count - 1);
  }
  position_ = position;
  return std::span<const float>(work.logits);
}

}  // namespace edge
