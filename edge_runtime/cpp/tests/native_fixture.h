// Small anchors with random weights, and what they should say, one value at a time in double precision.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bank_fixture.h"
#include "edge_runtime/lease_registry.h"
#include "edge_runtime/native.h"
#include "edge_runtime/native_writer.h"

namespace edge::testing {

// As our own anchors are: LayerNorm, QK-norm, a tied head.
inline NativeConfig openlm_like() {
  NativeConfig config = {3, 64, 2, 2, 32, 96, 50, 200, true, 1e-5F, QkNorm::kWidth, true, {0, 2}, {}, {}};
  config.set_layers(1e5F);
  return config;
}
// RMSNorm, two heads a key, a head of its own, and widths that no vector divides; biases, a scaled rope and a layer
// without positions.
inline NativeConfig llama_like() {
  NativeConfig config = {2, 40, 4, 2, 10, 70, 37, 200, false, 1e-5F, QkNorm::kNone, false, {1}, {}, {}};
  config.set_layers(1e4F);
  config.ropes[0] = {1e4F, NativeRope::Scaling::kLlama3, 8, 1, 4, 60};
  config.options[1].rope = NativeLayerOptions::kNoRope;
  config.qkv_bias = config.output_bias = config.ffn_bias = true;
  return config;
}
// Norms before and behind branches and of each head, windows that begin within chunks of keys, two ropes, GeGLU.
inline NativeConfig gemma_like() {
  NativeConfig config = {3, 32, 4, 1, 16, 64, 41, 200, false, 1e-6F, QkNorm::kHead, true, {0, 2}, {}, {}};
  config.ropes = {NativeRope{1e4F}, {1e6F, NativeRope::Scaling::kLinear, 8}};
  config.options = {{0, 70}, {1, NativeLayerOptions::kAll}, {0, 3}};
  config.attention_scale = 0.2F;
  config.activation = Activation::kGeluTanh;
  config.post_norm = true;
  config.embedding_scale = std::sqrt(32.0F);
  config.logit_softcap = 3;
  return config;
}
// Norms behind branches only.
inline NativeConfig olmo_like() {
  NativeConfig config = {2, 32, 2, 2, 16, 64, 41, 200, false, 1e-6F, QkNorm::kWidth, false, {0}, {}, {}};
  config.set_layers(5e5F);
  config.pre_norm = false;
  config.post_norm = true;
  return config;
}

inline std::vector<float> random_values(std::size_t count, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// An anchor's file, and its values as the dtype holds them.
class NativeAnchor {
 public:
  NativeAnchor(const TempDir& directory, const NativeConfig& config, DType dtype)
      : path(directory.file("anchor.native.safetensors")), config_(config) {
    auto writer = NativeWriter::create(path, config, dtype);
    EXPECT_TRUE(writer);
    std::mt19937 random(3);
    for (const NativeTensor& tensor : writer->tensors()) {
      const bool is_vector = tensor.shape.size() == 1;
      const bool gains = is_vector && tensor.name.find("bias") == std::string::npos;
      auto values = random_values(tensor.rows() * tensor.columns(), is_vector ? 0.2F : 0.3F, random);
      for (float& value : values) value += gains ? 1 : 0;
      EXPECT_TRUE(writer->append(values));
      std::vector<std::byte> data(row_bytes(tensor.dtype, tensor.columns()));
      std::vector<std::byte> scales(row_scale_bytes(tensor.dtype, tensor.columns()));
      for (std::uint64_t row = 0; row < tensor.rows(); ++row) {
        const std::span<float> of_row(values.data() + row * tensor.columns(), tensor.columns());
        EXPECT_TRUE(quantize_row(tensor.dtype, of_row, data.data(), scales.data()));
        dequantize_row(tensor.dtype, data.data(), scales.data(), of_row);
      }
      values_[tensor.name] = std::move(values);
    }
    EXPECT_TRUE(writer->finish());
  }

  std::shared_ptr<NativeModel> open(std::size_t threads = 2) const {
    auto model = NativeModel::open(path, config_, threads);
    EXPECT_TRUE(model) << (model ? "" : model.error().message);
    return *model;
  }

  // The logits of the last token. `memory`: further neurons [3, rows, d] of each layer that carries some.
  std::vector<double> logits(const std::vector<std::int64_t>& tokens,
                             const std::vector<std::vector<float>>& memory = {}) const {
    const std::size_t d = config_.d_model;
    std::vector<std::vector<double>> stream;
    for (const std::int64_t token : tokens) {
      const float* const row = at("embedding").data() + static_cast<std::size_t>(token) * d;
      stream.emplace_back(row, row + d);
      for (double& value : stream.back()) value *= static_cast<double>(config_.embedding_scale);
    }
    std::size_t slot = 0;
    for (std::uint32_t layer = 0; layer < config_.layers; ++layer) {
      const std::string of = "layers." + std::to_string(layer) + ".";
      attention(of, config_.options[layer], stream);
      const bool carries = slot < config_.memory_layers.size() && config_.memory_layers[slot] == layer;
      for (auto& x : stream) {
        const Vector h = normalised(x, of + "ffn_norm");
        Vector y(x.size());
        add_neurons(of, h, y);
        if (carries && !memory.empty()) add_memory(memory[slot], h, y);
        add(normalised(y, of + "ffn_post_norm"), x);
      }
      if (carries) ++slot;
    }
    Vector logits = product(at(config_.tied_embeddings ? "embedding" : "head"), normalised(stream.back(), "norm"));
    if (const double cap = static_cast<double>(config_.logit_softcap); cap > 0) {
      for (double& logit : logits) logit = cap * std::tanh(logit / cap);
    }
    return logits;
  }

  std::string path;

 private:
  using Vector = std::vector<double>;

  const std::vector<float>& at(const std::string& name) const { return values_.at(name); }

  static void add(const Vector& x, Vector& to) {
    for (std::size_t i = 0; i < x.size(); ++i) to[i] += x[i];
  }

  // x itself where the anchor has no such norm.
  Vector normalised(const Vector& x, const std::string& norm) const {
    return values_.contains(norm) ? normalised(x, at(norm)) : x;
  }
  Vector normalised(const Vector& x, const std::vector<float>& gains) const {
    double mean = 0;
    double squares = 0;
    for (const double v : x) mean += config_.centred_norm ? v / static_cast<double>(x.size()) : 0;
    for (const double v : x) squares += (v - mean) * (v - mean) / static_cast<double>(x.size());
    Vector y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      y[i] = (x[i] - mean) / std::sqrt(squares + static_cast<double>(config_.norm_eps)) * static_cast<double>(gains[i]);
    }
    return y;
  }

  static Vector product(std::span<const float> rows, const Vector& x) {
    Vector y(rows.size() / x.size());
    for (std::size_t i = 0; i < rows.size(); ++i) y[i / x.size()] += static_cast<double>(rows[i]) * x[i % x.size()];
    return y;
  }

  // Of the anchor's matrix, and of its bias where there is one.
  Vector linear(const std::string& matrix, const Vector& x) const {
    Vector y = product(at(matrix), x);
    if (const auto bias = values_.find(matrix + "_bias"); bias != values_.end()) {
      for (std::size_t i = 0; i < y.size(); ++i) y[i] += static_cast<double>(bias->second[i]);
    }
    return y;
  }

  static double silu(double x) { return x / (1 + std::exp(-x)); }
  static double gelu(double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

  void add_neurons(const std::string& of, const Vector& h, Vector& to) const {
    Vector hidden = linear(of + "gate", h);
    const Vector up = linear(of + "up", h);
    for (std::size_t i = 0; i < hidden.size(); ++i) {
      hidden[i] = (config_.activation == Activation::kSilu ? silu(hidden[i]) : gelu(hidden[i])) * up[i];
    }
    add(linear(of + "down", hidden), to);
  }

  // [3, rows, d]: W3 is stored by neuron there.
  static void add_memory(const std::vector<float>& ffn, const Vector& h, Vector& to) {
    const std::size_t third = ffn.size() / 3;
    const std::span<const float> all(ffn);
    const Vector gate = product(all.first(third), h);
    const Vector up = product(all.subspan(third, third), h);
    for (std::size_t i = 0; i < third; ++i) {
      to[i % h.size()] += silu(gate[i / h.size()]) * up[i / h.size()] * static_cast<double>(all[2 * third + i]);
    }
  }

  // As Llama 3 defines its scaling, by wave lengths.
  static double scaled(double frequency, const NativeRope& rope) {
    const auto factor = static_cast<double>(rope.factor);
    if (rope.scaling == NativeRope::Scaling::kLinear) return frequency / factor;
    if (rope.scaling == NativeRope::Scaling::kNone) return frequency;
    const auto context = static_cast<double>(rope.original_context);
    const auto low = static_cast<double>(rope.low);
    const auto high = static_cast<double>(rope.high);
    const double wave = 2 * M_PI / frequency;
    if (wave > context / low) return frequency / factor;
    if (wave < context / high) return frequency;
    const double smooth = (context / wave - low) / (high - low);
    return (1 - smooth) * frequency / factor + smooth * frequency;
  }

  void rotate(double* head, std::size_t position, const NativeRope& rope) const {
    const std::size_t half = config_.head_dim / 2;
    for (std::size_t i = 0; i < half; ++i) {
      const double frequency =
          std::pow(static_cast<double>(rope.theta), -static_cast<double>(i) / static_cast<double>(half));
      const double angle = static_cast<double>(position) * scaled(frequency, rope);
      const double first = head[i];
      const double second = head[half + i];
      head[i] = first * std::cos(angle) - second * std::sin(angle);
      head[half + i] = second * std::cos(angle) + first * std::sin(angle);
    }
  }

  void prepare(const std::string& norm, const NativeLayerOptions& options, std::size_t position, Vector& heads) const {
    const std::size_t dim = config_.head_dim;
    if (config_.qk_norm == QkNorm::kWidth) heads = normalised(heads, norm);
    for (auto head = heads.begin(); head != heads.end(); head += static_cast<std::ptrdiff_t>(dim)) {
      if (config_.qk_norm == QkNorm::kHead) {
        const Vector one = normalised(Vector(head, head + static_cast<std::ptrdiff_t>(dim)), norm);
        std::copy(one.begin(), one.end(), head);
      }
      if (options.rope != NativeLayerOptions::kNoRope) rotate(&*head, position, config_.ropes[options.rope]);
    }
  }

  void attention(const std::string& of, const NativeLayerOptions& options, std::vector<Vector>& stream) const {
    const std::size_t dim = config_.head_dim;
    const auto queries = static_cast<std::ptrdiff_t>(config_.query_width());
    const auto keys = static_cast<std::ptrdiff_t>(config_.kv_width());
    std::vector<Vector> q;
    std::vector<Vector> k;
    std::vector<Vector> v;
    for (std::size_t t = 0; t < stream.size(); ++t) {
      const Vector all = linear(of + "qkv", normalised(stream[t], of + "attention_norm"));
      q.emplace_back(all.begin(), all.begin() + queries);
      k.emplace_back(all.begin() + queries, all.begin() + queries + keys);
      v.emplace_back(all.begin() + queries + keys, all.end());
      prepare(of + "q_norm", options, t, q[t]);
      prepare(of + "k_norm", options, t, k[t]);
    }
    for (std::size_t t = 0; t < stream.size(); ++t) {
      Vector y(config_.query_width());
      for (std::size_t h = 0; h < config_.heads; ++h) {
        const std::size_t shared = h / (config_.heads / config_.kv_heads);
        double total = 0;
        for (std::size_t s = t >= options.window ? t + 1 - options.window : 0; s <= t; ++s) {
          double score = 0;
          for (std::size_t i = 0; i < dim; ++i) score += q[t][h * dim + i] * k[s][shared * dim + i];
          const double weight = std::exp(score * static_cast<double>(config_.attention_scale));
          total += weight;
          for (std::size_t i = 0; i < dim; ++i) y[h * dim + i] += weight * v[s][shared * dim + i];
        }
        for (std::size_t i = 0; i < dim; ++i) y[h * dim + i] /= total;
      }
      add(normalised(linear(of + "attention_out", y), of + "attention_post_norm"), stream[t]);
    }
  }

  NativeConfig config_;
  std::map<std::string, std::vector<float>> values_;
};

}  // namespace edge::testing
