#include <algorithm>
#include <string>
#include <utility>

#include "edge_runtime/native_config.h"
#include "native/limits.h"
#include "strict_json.h"

namespace edge {
namespace {

using Json = nlohmann::json;

constexpr std::uint32_t kMostContext = 1U << 24U;

// Reads members of one of the manifest's objects. `status` keeps the first thing that is wrong in any of them.
class Reader {
 public:
  Reader(const Json& object, std::string where, Status& status)
      : object_(object), where_(std::move(where)), status_(status) {
    if (!object_.is_object()) keep(ErrorCode::kBadFormat, "is missing or not an object");
  }

  std::uint32_t number(const char* key, std::uint32_t most, std::uint32_t least = 1) {
    const Json* const value = find(key);
    if (value == nullptr || !value->is_number_unsigned() || value->get<std::uint64_t>() < least ||
        value->get<std::uint64_t>() > most) {
      keep(key, ErrorCode::kBadFormat,
           "is not an integer from " + std::to_string(least) + " to " + std::to_string(most));
      return 1;
    }
    return value->get<std::uint32_t>();
  }
  float real(const char* key, double least) {
    const Json* const value = find(key);
    if (value == nullptr || !value->is_number() || !(value->get<double>() >= least) || value->get<double>() > 1e12) {
      keep(key, ErrorCode::kBadFormat, "is not a number in range");
      return 1;
    }
    return value->get<float>();
  }
  bool boolean(const char* key) {
    const Json* const value = find(key);
    if (value == nullptr || !value->is_boolean()) {
      keep(key, ErrorCode::kBadFormat, "is not true or false");
      return false;
    }
    return value->get<bool>();
  }
  // Which of the texts that the engine knows.
  std::size_t choice(const char* key, std::initializer_list<std::string_view> known) {
    const Json* const value = find(key);
    const std::string text = value != nullptr && value->is_string() ? value->get<std::string>() : "";
    const auto* const found = std::find(known.begin(), known.end(), text);
    if (found == known.end()) {
      keep(key, ErrorCode::kUnsupported, "is '" + printable(text) + "', which the native engine does not know");
      return 0;
    }
    return static_cast<std::size_t>(found - known.begin());
  }
  bool is_null(const char* key) const {
    const Json* const value = find(key);
    return value != nullptr && value->is_null();
  }
  const Json& at(const char* key) const {
    static const Json nothing;
    const Json* const value = find(key);
    return value == nullptr ? nothing : *value;
  }
  void require(bool holds, const char* key, const std::string& what) {
    if (!holds) keep(key, ErrorCode::kUnsupported, what);
  }
  // An option that is not known would change what is computed: it is refused, not ignored.
  void only(std::initializer_list<std::string_view> known) {
    if (!object_.is_object()) return;
    for (const auto& [key, value] : object_.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        keep(printable(key).c_str(), ErrorCode::kUnsupported, "is an option that the native engine does not know");
      }
    }
  }

 private:
  const Json* find(const char* key) const {
    return object_.is_object() && object_.contains(key) ? &object_[key] : nullptr;
  }
  void keep(ErrorCode code, const std::string& what) {
    if (status_) status_ = fail(code, "manifest.json: '" + where_ + "' " + what);
  }
  void keep(const char* key, ErrorCode code, const std::string& what) {
    if (status_) status_ = fail(code, "manifest.json: '" + where_ + "." + key + "' " + what);
  }

  const Json& object_;
  std::string where_;
  Status& status_;
};

NativeRope read_rope(const Json& object, const std::string& where, Status& status) {
  Reader read(object, where, status);
  read.only({"theta", "scaling", "factor", "low", "high", "original_context"});
  NativeRope rope;
  rope.theta = read.real("theta", 1e-6);
  rope.scaling = static_cast<NativeRope::Scaling>(read.choice("scaling", {"none", "linear", "llama3"}));
  rope.factor = read.real("factor", 1e-6);
  rope.low = read.real("low", 0);
  rope.high = read.real("high", 0);
  rope.original_context = static_cast<float>(read.number("original_context", 1U << 30U, 0));
  read.require(rope.scaling != NativeRope::Scaling::kLlama3 || rope.high > rope.low, "high", "is not above its 'low'");
  return rope;
}

void read_layer(const Json& object, const std::string& where, NativeConfig& config, Status& status) {
  Reader read(object, where, status);
  read.only({"rope", "window"});
  NativeLayerOptions layer;
  if (!read.is_null("window")) layer.window = read.number("window", kMostContext);
  if (read.is_null("rope")) {
    layer.rope = NativeLayerOptions::kNoRope;
  } else {
    const NativeRope rope = read_rope(read.at("rope"), where + ".rope", status);
    const auto found = std::find(config.ropes.begin(), config.ropes.end(), rope);
    layer.rope = static_cast<std::uint32_t>(found - config.ropes.begin());
    if (found == config.ropes.end()) config.ropes.push_back(rope);
  }
  config.options.push_back(layer);
}

// docs/bundle-format.md: what an anchor of the architecture `decoder` says beyond its dimensions.
void read_options(const Json& object, NativeConfig& config, Status& status) {
  const std::string where = "anchor.options";
  Reader read(object, where, status);
  read.only({"layers", "qk_norm", "attention_scale", "pre_norm", "post_norm", "qkv_bias", "output_bias", "ffn_bias",
             "embedding_scale", "logit_softcap"});
  config.qk_norm = static_cast<QkNorm>(read.choice("qk_norm", {"none", "width", "head"}));
  config.attention_scale = read.real("attention_scale", 1e-12);
  config.pre_norm = read.boolean("pre_norm");
  config.post_norm = read.boolean("post_norm");
  config.qkv_bias = read.boolean("qkv_bias");
  config.output_bias = read.boolean("output_bias");
  config.ffn_bias = read.boolean("ffn_bias");
  config.embedding_scale = read.real("embedding_scale", 1e-12);
  if (!read.is_null("logit_softcap")) config.logit_softcap = read.real("logit_softcap", 1e-6);
  const Json& layers = read.at("layers");
  read.require(layers.is_array() && layers.size() == config.layers, "layers", "is not a list with an entry a layer");
  for (std::size_t i = 0; status && i < layers.size(); ++i) {
    read_layer(layers[i], where + ".layers[" + std::to_string(i) + "]", config, status);
  }
}

}  // namespace

std::uint64_t NativeTensor::rows() const {
  std::uint64_t rows = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

Result<NativeConfig> parse_native_config(std::string_view anchor, std::vector<std::uint32_t> memory_layers) {
  constexpr int kDeepest = 8;
  const Json json = parse_strict(anchor, kDeepest);
  Status status;
  Reader read(json, "anchor", status);
  NativeConfig config;
  const bool has_options = read.choice("architecture", {"openlm", "decoder"}) == 1;
  config.activation = static_cast<Activation>(read.choice("activation", {"silu", "gelu_tanh"}));
  config.layers = read.number("layers", 4096);
  config.d_model = read.number("d_model", 1U << 16U);
  config.heads = read.number("heads", 1U << 12U);
  config.kv_heads = read.number("kv_heads", 1U << 12U);
  config.head_dim = read.number("head_dim", native::kMostHeadDim);
  config.ffn_dim = read.number("ffn_dim", 1U << 20U);
  config.vocab_size = read.number("vocab_size", 1U << 24U);
  config.context_length = read.number("context_length", kMostContext);
  config.norm_eps = read.real("norm_eps", 0);
  config.centred_norm = read.choice("norm", {"layernorm", "rmsnorm"}) == 0;
  config.tied_embeddings = read.boolean("tied_embeddings");
  read.require(config.heads % config.kv_heads == 0, "kv_heads", "does not divide 'anchor.heads'");
  read.require(config.heads / config.kv_heads <= native::kMostQueries, "kv_heads",
               "is shared by more than " + std::to_string(native::kMostQueries) + " heads each");
  read.require(config.head_dim % 2 == 0, "head_dim", "is odd, which rotary positions do not allow");
  if (has_options) {
    read_options(read.at("options"), config, status);
  } else {
    config.set_layers(read.real("rope_theta", 1e-6));
    config.qk_norm = read.boolean("qk_norm") ? QkNorm::kWidth : QkNorm::kNone;
  }
  if (!status) return tl::make_unexpected(status.error());
  for (std::size_t i = 0; i < memory_layers.size(); ++i) {
    if (memory_layers[i] >= config.layers || (i > 0 && memory_layers[i] <= memory_layers[i - 1])) {
      return fail(ErrorCode::kBadFormat, "manifest.json: 'memory.layers' is not an ascending list of the anchor's");
    }
  }
  config.memory_layers = std::move(memory_layers);
  return config;
}

std::vector<NativeTensor> native_tensors(const NativeConfig& config, DType dtype) {
  const std::uint64_t d = config.d_model;
  const std::uint64_t queries = config.query_width();
  const std::uint64_t keys = config.kv_width();
  std::vector<NativeTensor> tensors = {{"embedding", dtype, {config.vocab_size, d}}};
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    const auto add = [&](const char* name, DType type, std::vector<std::uint64_t> shape) {
      tensors.push_back({"layers." + std::to_string(layer) + "." + name, type, std::move(shape)});
    };
    const auto add_if = [&](bool there, const char* name, std::uint64_t width) {
      if (there) add(name, DType::kF32, {width});
    };
    add_if(config.pre_norm, "attention_norm", d);
    add("qkv", dtype, {queries + 2 * keys, d});
    add_if(config.qkv_bias, "qkv_bias", queries + 2 * keys);
    const bool whole = config.qk_norm == QkNorm::kWidth;
    add_if(config.qk_norm != QkNorm::kNone, "q_norm", whole ? queries : config.head_dim);
    add_if(config.qk_norm != QkNorm::kNone, "k_norm", whole ? keys : config.head_dim);
    add("attention_out", dtype, {d, queries});
    add_if(config.output_bias, "attention_out_bias", d);
    add_if(config.post_norm, "attention_post_norm", d);
    add_if(config.pre_norm, "ffn_norm", d);
    add("gate", dtype, {config.ffn_dim, d});
    add_if(config.ffn_bias, "gate_bias", config.ffn_dim);
    add("up", dtype, {config.ffn_dim, d});
    add_if(config.ffn_bias, "up_bias", config.ffn_dim);
    add("down", dtype, {d, config.ffn_dim});
    add_if(config.ffn_bias, "down_bias", d);
    add_if(config.post_norm, "ffn_post_norm", d);
  }
  tensors.push_back({"norm", DType::kF32, {d}});
  if (!config.tied_embeddings) tensors.push_back({"head", dtype, {config.vocab_size, d}});
  return tensors;
}

}  // namespace edge
