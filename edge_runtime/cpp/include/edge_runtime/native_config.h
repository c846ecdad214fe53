// What the native engine must know of an anchor: the manifest's `anchor` object (docs/bundle-format.md), checked.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/dtype.h"
#include "edge_runtime/result.h"

namespace edge {

// Rotary positions in the rotate-half layout: pair i of a head turns by theta^(-2 i / head_dim) a token. Scaled,
// linear: all of them slower by `factor`; llama3: those that make fewer than `low` turns in `original_context` tokens,
// and in part those that make fewer than `high`.
struct NativeRope {
  enum class Scaling : std::uint8_t { kNone, kLinear, kLlama3 };

  float theta = 0;
  Scaling scaling = Scaling::kNone;
  float factor = 1;
  float low = 1;
  float high = 4;
  float original_context = 0;
  bool operator==(const NativeRope&) const = default;
};

// What layers may differ in.
struct NativeLayerOptions {
  static constexpr std::uint32_t kAll = std::numeric_limits<std::uint32_t>::max();
  static constexpr std::uint32_t kNoRope = kAll;

  std::uint32_t rope = 0;       // of NativeConfig::ropes; kNoRope: its heads are not turned
  std::uint32_t window = kAll;  // the positions that a query sees, its own included
};

enum class QkNorm : std::uint8_t { kNone, kWidth, kHead };  // over all heads together, before they are split; over each
enum class Activation : std::uint8_t { kSilu, kGeluTanh };

struct NativeConfig {
  std::uint32_t layers = 0;
  std::uint32_t d_model = 0;
  std::uint32_t heads = 0;
  std::uint32_t kv_heads = 0;  // divides heads
  std::uint32_t head_dim = 0;  // even
  std::uint32_t ffn_dim = 0;
  std::uint32_t vocab_size = 0;
  std::uint32_t context_length = 0;
  bool centred_norm = false;  // LayerNorm with a gain only; otherwise RMSNorm
  float norm_eps = 0;
  QkNorm qk_norm = QkNorm::kNone;
  bool tied_embeddings = false;
  std::vector<std::uint32_t> memory_layers;   // the anchor's layers that carry memory, ascending
  std::vector<NativeRope> ropes;              // the distinct ones
  std::vector<NativeLayerOptions> options;    // of each layer
  float attention_scale = 0;                  // of a query's product with a key
  Activation activation = Activation::kSilu;  // of the anchor's gates; memory's are SwiGLU's always
  // Each branch, attention and FFN, is x + post(branch(pre(x))); without a norm there, pre or post is nothing.
  bool pre_norm = true;
  bool post_norm = false;
  bool qkv_bias = false;
  bool output_bias = false;
  bool ffn_bias = false;
  float embedding_scale = 1;
  float logit_softcap = 0;  // c of c tanh(x / c); 0: none

  // All layers alike: one rope, no window, scores divided by the root of head_dim.
  void set_layers(float rope_theta) {
    ropes = {NativeRope{rope_theta}};
    options.assign(layers, {});
    attention_scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
  }

  std::size_t query_width() const { return std::size_t{heads} * head_dim; }
  std::size_t kv_width() const { return std::size_t{kv_heads} * head_dim; }
};

// kBadFormat: a value is missing or out of range; kUnsupported: an architecture or option that the engine lacks.
Result<NativeConfig> parse_native_config(std::string_view anchor, std::vector<std::uint32_t> memory_layers);

// One tensor of anchor.native.safetensors (docs/native-format.md). The last extent is the length of a row.
struct NativeTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::uint64_t> shape;

  std::uint64_t columns() const { return shape.back(); }
  std::uint64_t rows() const;
};

// All of them in the file's order, which is the order in which a token reads them: matrices in `dtype`, gains and
// biases in f32.
std::vector<NativeTensor> native_tensors(const NativeConfig& config, DType dtype);

}  // namespace edge
