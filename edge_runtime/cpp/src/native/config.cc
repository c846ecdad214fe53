#include <algorithm>
#include <cmath>
#include <string>

#include "edge_runtime/native_config.h"
#include "native/limits.h"
#include "strict_json.h"

namespace edge {
namespace {

using Json = nlohmann::json;

// Reads members of the anchor object and keeps the first thing that is wrong.
class Reader {
 public:
  explicit Reader(const Json& anchor) : anchor_(anchor) {}

  std::uint32_t number(const char* key, std::uint32_t most) {
    const Json* const value = find(key);
    if (value == nullptr || !value->is_number_unsigned() || value->get<std::uint64_t>() < 1 ||
        value->get<std::uint64_t>() > most) {
      keep(ErrorCode::kBadFormat, key, "is not an integer from 1 to " + std::to_string(most));
      return 1;
    }
    return value->get<std::uint32_t>();
  }
  float real(const char* key, double least) {
    const Json* const value = find(key);
    if (value == nullptr || !value->is_number() || !(value->get<double>() >= least) || value->get<double>() > 1e12) {
      keep(ErrorCode::kBadFormat, key, "is not a number in range");
      return 1;
    }
    return value->get<float>();
  }
  bool boolean(const char* key) {
    const Json* const value = find(key);
    if (value == nullptr || !value->is_boolean()) {
      keep(ErrorCode::kBadFormat, key, "is not true or false");
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
      keep(ErrorCode::kUnsupported, key, "is '" + printable(text) + "', which the native engine does not know");
      return 0;
    }
    return static_cast<std::size_t>(found - known.begin());
  }
  void require(bool holds, const char* key, const std::string& what) {
    if (!holds) keep(ErrorCode::kUnsupported, key, what);
  }
  const Status& status() const { return status_; }

 private:
  const Json* find(const char* key) const {
    return anchor_.is_object() && anchor_.contains(key) ? &anchor_[key] : nullptr;
  }
  void keep(ErrorCode code, const char* key, const std::string& what) {
    if (status_) status_ = fail(code, "manifest.json: 'anchor." + std::string(key) + "' " + what);
  }

  const Json& anchor_;
  Status status_;
};

}  // namespace

std::uint64_t NativeTensor::rows() const {
  std::uint64_t rows = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

Result<NativeConfig> parse_native_config(std::string_view anchor, std::vector<std::uint32_t> memory_layers) {
  constexpr int kDeepest = 8;
  const Json json = parse_strict(anchor, kDeepest);
  Reader read(json);
  NativeConfig config;
  read.choice("architecture", {"openlm", "llama"});
  read.choice("activation", {"silu"});
  config.layers = read.number("layers", 4096);
  config.d_model = read.number("d_model", 1U << 16U);
  config.heads = read.number("heads", 1U << 12U);
  config.kv_heads = read.number("kv_heads", 1U << 12U);
  config.head_dim = read.number("head_dim", native::kMostHeadDim);
  config.ffn_dim = read.number("ffn_dim", 1U << 20U);
  config.vocab_size = read.number("vocab_size", 1U << 24U);
  config.context_length = read.number("context_length", 1U << 24U);
  config.rope_theta = read.real("rope_theta", 1e-6);
  config.norm_eps = read.real("norm_eps", 0);
  config.centred_norm = read.choice("norm", {"layernorm", "rmsnorm"}) == 0;
  config.qk_norm = read.boolean("qk_norm");
  config.tied_embeddings = read.boolean("tied_embeddings");
  read.require(config.heads % config.kv_heads == 0, "kv_heads", "does not divide 'anchor.heads'");
  read.require(config.heads / config.kv_heads <= native::kMostQueries, "kv_heads",
               "is shared by more than " + std::to_string(native::kMostQueries) + " heads each");
  read.require(config.head_dim % 2 == 0, "head_dim", "is odd, which rotary positions do not allow");
  if (!read.status()) return tl::make_unexpected(read.status().error());
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
    add("attention_norm", DType::kF32, {d});
    add("qkv", dtype, {queries + 2 * keys, d});
    if (config.qk_norm) {
      add("q_norm", DType::kF32, {queries});
      add("k_norm", DType::kF32, {keys});
    }
    add("attention_out", dtype, {d, queries});
    add("ffn_norm", DType::kF32, {d});
    add("gate", dtype, {config.ffn_dim, d});
    add("up", dtype, {config.ffn_dim, d});
    add("down", dtype, {d, config.ffn_dim});
  }
  tensors.push_back({"norm", DType::kF32, {d}});
  if (!config.tied_embeddings) tensors.push_back({"head", dtype, {config.vocab_size, d}});
  return tensors;
}

}  // namespace edge
