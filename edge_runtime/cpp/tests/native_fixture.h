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
inline NativeConfig openlm_like() { return {3, 64, 2, 2, 32, 96, 50, 200, 1e5F, true, 1e-5F, true, true, {0, 2}}; }
// RMSNorm, two heads a key, a head of its own, and widths that no vector divides.
inline NativeConfig llama_like() { return {2, 40, 4, 2, 10, 70, 37, 200, 1e4F, false, 1e-5F, false, false, {1}}; }

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
      const bool gains = tensor.shape.size() == 1;
      auto values = random_values(tensor.rows() * tensor.columns(), gains ? 0.2F : 0.3F, random);
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
    }
    std::size_t slot = 0;
    for (std::uint32_t layer = 0; layer < config_.layers; ++layer) {
      const std::string of = "layers." + std::to_string(layer) + ".";
      attention(of, stream);
      const bool carries = slot < config_.memory_layers.size() && config_.memory_layers[slot] == layer;
      for (auto& x : stream) {
        const auto h = normalised(x, at(of + "ffn_norm"));
        add_neurons(neurons(of), h, x);
        if (carries && !memory.empty()) add_neurons(memory[slot], h, x);
      }
      if (carries) ++slot;
    }
    return product(at(config_.tied_embeddings ? "embedding" : "head"), normalised(stream.back(), at("norm")));
  }

  std::string path;

 private:
  using Vector = std::vector<double>;

  const std::vector<float>& at(const std::string& name) const { return values_.at(name); }

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

  // [3, ffn_dim, d], as a block of memory has them: W3 is stored by neuron there.
  std::vector<float> neurons(const std::string& of) const {
    std::vector<float> all = at(of + "gate");
    all.insert(all.end(), at(of + "up").begin(), at(of + "up").end());
    for (std::size_t neuron = 0; neuron < config_.ffn_dim; ++neuron) {
      for (std::size_t i = 0; i < config_.d_model; ++i) all.push_back(at(of + "down")[i * config_.ffn_dim + neuron]);
    }
    return all;
  }

  static void add_neurons(const std::vector<float>& ffn, const Vector& h, Vector& to) {
    const std::size_t third = ffn.size() / 3;
    const std::span<const float> all(ffn);
    const Vector gate = product(all.first(third), h);
    const Vector up = product(all.subspan(third, third), h);
    for (std::size_t i = 0; i < third; ++i) {
      const double g = gate[i / h.size()];
      to[i % h.size()] += g / (1 + std::exp(-g)) * up[i / h.size()] * static_cast<double>(all[2 * third + i]);
    }
  }

  void rotate(double* head, std::size_t position) const {
    const std::size_t half = config_.head_dim / 2;
    for (std::size_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(position) *
          std::pow(static_cast<double>(config_.rope_theta), -static_cast<double>(i) / static_cast<double>(half));
      const double first = head[i];
      const double second = head[half + i];
      head[i] = first * std::cos(angle) - second * std::sin(angle);
      head[half + i] = second * std::cos(angle) + first * std::sin(angle);
    }
  }

  void attention(const std::string& of, std::vector<Vector>& stream) const {
    const std::size_t dim = config_.head_dim;
    const auto queries = static_cast<std::ptrdiff_t>(config_.query_width());
    const auto keys = static_cast<std::ptrdiff_t>(config_.kv_width());
    std::vector<Vector> q;
    std::vector<Vector> k;
    std::vector<Vector> v;
    for (std::size_t t = 0; t < stream.size(); ++t) {
      const Vector all = product(at(of + "qkv"), normalised(stream[t], at(of + "attention_norm")));
      q.emplace_back(all.begin(), all.begin() + queries);
      k.emplace_back(all.begin() + queries, all.begin() + queries + keys);
      v.emplace_back(all.begin() + queries + keys, all.end());
      if (config_.qk_norm) {
        q[t] = normalised(q[t], at(of + "q_norm"));
        k[t] = normalised(k[t], at(of + "k_norm"));
      }
      for (std::size_t h = 0; h < config_.heads; ++h) rotate(q[t].data() + h * dim, t);
      for (std::size_t h = 0; h < config_.kv_heads; ++h) rotate(k[t].data() + h * dim, t);
    }
    for (std::size_t t = 0; t < stream.size(); ++t) {
      Vector y(config_.query_width());
      for (std::size_t h = 0; h < config_.heads; ++h) {
        const std::size_t shared = h / (config_.heads / config_.kv_heads);
        double total = 0;
        for (std::size_t s = 0; s <= t; ++s) {
          double score = 0;
          for (std::size_t i = 0; i < dim; ++i) score += q[t][h * dim + i] * k[s][shared * dim + i];
          const double weight = std::exp(score / std::sqrt(static_cast<double>(dim)));
          total += weight;
          for (std::size_t i = 0; i < dim; ++i) y[h * dim + i] += weight * v[s][shared * dim + i];
        }
        for (std::size_t i = 0; i < dim; ++i) y[h * dim + i] /= total;
      }
      const Vector out = product(at(of + "attention_out"), y);
      for (std::size_t i = 0; i < out.size(); ++i) stream[t][i] += out[i];
    }
  }

  NativeConfig config_;
  std::map<std::string, std::vector<float>> values_;
};

}  // namespace edge::testing
