#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>
#include <vector>

#include "edge_runtime/lease_registry.h"
#include "edge_runtime/native.h"
#include "native/arithmetic.h"
#include "native/attention.h"
#include "native/feed_forward.h"
#include "native/heads.h"
#include "native/inputs.h"
#include "native/product.h"
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
        products(kernels, kernels::active_packed_kernels()),
        inputs(kernels::active_packed_kernels()),
        feed_forward(kernels, kernels::active_packed_kernels(), parallel, of.activation),
        cache(of, model.kv_dtype()),
        heads(of),
        logits(of.vocab_size) {}

  void make_room(std::size_t tokens);
  void embed(std::span<const std::int64_t> tokens, std::size_t position);
  void normalise(const float* gains, DType dtype, std::size_t tokens);
  float* begin_branch(std::size_t tokens);
  void end_branch(const float* gains, std::size_t tokens);
  void attention(std::size_t layer, std::size_t tokens, std::size_t position);
  Status through_layers(std::size_t tokens, std::size_t position, MemorySource* memory);
  void head(std::size_t last);

  // Calls what(t) for every token.
  template <typename What>
  void for_each_token(std::size_t tokens, const What& what) {
    constexpr std::size_t kTogether = 8;
    parallel.run((tokens + kTogether - 1) / kTogether, [&](std::size_t tile) {
      for (std::size_t t = tile * kTogether; t < std::min(tokens, (tile + 1) * kTogether); ++t) what(t);
    });
  }

  const NativeConfig& config;
  const native::Weights& weights;
  Parallel& parallel;
  const kernels::Kernels& kernels;
  native::Products products;
  native::Inputs inputs;  // of the matrix whose turn it is
  native::FeedForward feed_forward;
  native::KvCache cache;
  std::size_t room = 0;  // tokens that the following have room for
  native::Heads heads;
  std::vector<float> stream;  // [tokens, d]: the residual stream
  std::vector<float> normed;  // [tokens, d]: what a branch reads
  std::vector<float> branch;  // [tokens, d]: what it gives, where that is normalised
  std::vector<float> qkv;
  std::vector<float> queries;
  std::vector<float> attended;
  std::vector<MemoryRows> leased;
  std::vector<float> logits;
};

void NativeContext::Impl::make_room(std::size_t tokens) {
  if (tokens <= room) return;
  room = tokens;
  heads.make_room(tokens);
  stream.resize(tokens * config.d_model);
  normed.resize(tokens * config.d_model);
  if (config.post_norm) branch.resize(tokens * config.d_model);
  qkv.resize(tokens * (config.query_width() + 2 * config.kv_width()));
  queries.resize(tokens * config.query_width());
  attended.resize(tokens * config.query_width());
}

void NativeContext::Impl::embed(std::span<const std::int64_t> tokens, std::size_t position) {
  const std::size_t d = config.d_model;
  for_each_token(tokens.size(), [&](std::size_t t) {
    heads.turn_to(t, position + t);
    const std::span<float> row(stream.data() + t * d, d);
    weights.embedding.row(static_cast<std::size_t>(tokens[t]), row);
    if (config.embedding_scale != 1) {
      for (float& value : row) value *= config.embedding_scale;
    }
  });
}

// The stream, normalised where there are gains, as the inputs of matrices of this dtype.
void NativeContext::Impl::normalise(const float* gains, DType dtype, std::size_t tokens) {
  const std::size_t d = config.d_model;
  inputs.shape(dtype, d, tokens);
  for_each_token(tokens, [&](std::size_t t) {
    float* const y = normed.data() + t * d;
    if (gains == nullptr) {
      std::copy_n(stream.data() + t * d, d, y);
    } else {
      native::normalise(stream.data() + t * d, gains, d, config.norm_eps, config.centred_norm, y);
    }
    inputs.set(t, 0, d, y);
  });
}

// What a branch adds to: the stream, or, where its sum is normalised first, zeros.
float* NativeContext::Impl::begin_branch(std::size_t tokens) {
  if (!config.post_norm) return stream.data();
  std::fill_n(branch.begin(), tokens * config.d_model, 0.0F);
  return branch.data();
}

void NativeContext::Impl::end_branch(const float* gains, std::size_t tokens) {
  if (!config.post_norm) return;
  const std::size_t d = config.d_model;
  for_each_token(tokens, [&](std::size_t t) {
    float* const y = branch.data() + t * d;
    native::normalise(y, gains, d, config.norm_eps, config.centred_norm, y);
    native::add_to(stream.data() + t * d, y, d);
  });
}

void NativeContext::Impl::attention(std::size_t layer, std::size_t tokens, std::size_t position) {
  const native::Layer& of = weights.layers[layer];
  const std::size_t d = config.d_model;
  const std::size_t query_width = config.query_width();
  const std::size_t kv_width = config.kv_width();
  const std::size_t dim = config.head_dim;
  const std::size_t width = query_width + 2 * kv_width;
  products.run(of.qkv, inputs, parallel, [&](const native::Tile& tile) {
    for (std::size_t t = 0; t < tile.tokens; ++t) {
      float* const to = qkv.data() + (tile.first_token + t) * width + tile.first_row;
      std::copy_n(tile.values + t * native::kTileRows, tile.rows, to);
      if (of.qkv_bias != nullptr) native::add_to(to, of.qkv_bias + tile.first_row, tile.rows);
    }
  });
  for_each_token(tokens, [&](std::size_t t) {
    float* const query = qkv.data() + t * width;
    float* const key = query + query_width;
    const float* const value = key + kv_width;
    heads.prepare(of, config.options[layer], t, query, key);
    std::copy_n(query, query_width, queries.data() + t * query_width);
    for (std::size_t head = 0; head < config.kv_heads; ++head) {
      cache.store_key(kernels, cache.keys(layer, head), position + t, key + head * dim);
      cache.store_value(kernels, cache.values(layer, head), position + t, value + head * dim);
    }
  });
  native::attend(kernels, config, cache, layer, queries.data(), tokens, position, attended.data(), parallel);
  inputs.shape(of.attention_out.dtype, query_width, tokens);
  for_each_token(tokens, [&](std::size_t t) { inputs.set(t, 0, query_width, attended.data() + t * query_width); });
  float* const sum = begin_branch(tokens);
  products.run(of.attention_out, inputs, parallel, [&](const native::Tile& tile) {
    for (std::size_t t = 0; t < tile.tokens; ++t) {
      float* const to = sum + (tile.first_token + t) * d + tile.first_row;
      native::add_to(to, tile.values + t * native::kTileRows, tile.rows);
      if (of.attention_out_bias != nullptr) native::add_to(to, of.attention_out_bias + tile.first_row, tile.rows);
    }
  });
  end_branch(of.attention_post_norm, tokens);
}

Status NativeContext::Impl::through_layers(std::size_t tokens, std::size_t position, MemorySource* memory) {
  auto carrier = config.memory_layers.begin();
  for (std::size_t index = 0; index < config.layers; ++index) {
    const native::Layer& layer = weights.layers[index];
    normalise(layer.attention_norm, layer.qkv.dtype, tokens);
    attention(index, tokens, position);
    normalise(layer.ffn_norm, layer.gate.dtype, tokens);
    leased.clear();
    if (carrier != config.memory_layers.end() && *carrier == index) {
      const auto slot = static_cast<std::uint32_t>(carrier - config.memory_layers.begin());
      if (memory != nullptr) {
        if (auto status = memory->layer(slot, leased); !status) return status;
      }
      ++carrier;
    }
    feed_forward(layer, inputs, normed.data(), leased, begin_branch(tokens));
    end_branch(layer.ffn_post_norm, tokens);
  }
  return {};
}

void NativeContext::Impl::head(std::size_t last) {
  const std::size_t d = config.d_model;
  native::normalise(stream.data() + last * d, weights.norm, d, config.norm_eps, config.centred_norm, normed.data());
  inputs.shape(weights.head.dtype, d, 1);
  inputs.set(0, 0, d, normed.data());
  products.run(weights.head, inputs, parallel,
               [&](const native::Tile& tile) { std::copy_n(tile.values, tile.rows, logits.data() + tile.first_row); });
  if (const float cap = config.logit_softcap; cap > 0) {
    for (float& logit : logits) logit = cap * std::tanh(logit / cap);
  }
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
    work.make_room(count);
    work.embed(tokens.subspan(first, count), position);
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
