// The native anchor and what the manifest says of it: hostile ones are refused with a clear line; of a file that is
// accepted, every row lies inside it.
//
// The input is that of safetensors_input.h. Its JSON has a key of its own, `anchor`: the manifest's object, and `dtype`
// of the matrices. Tensors that the anchor has and the JSON does not name are added.
#include <string>
#include <vector>

#include "native/stored.h"
#include "native/weights.h"
#include "safetensors_input.h"

namespace edge::fuzz {
namespace {

using Json = nlohmann::json;

constexpr std::uint8_t kDerive = 1;
constexpr std::uint64_t kMostBytes = 1U << 20U;
constexpr std::uint32_t kMostLayers = 4;

// What the input says of its anchor; null where it says nothing.
Json take(Json& header, const char* key) {
  if (!header.is_object() || !header.contains(key)) return nullptr;
  Json taken = std::move(header[key]);
  header.erase(key);
  return taken;
}

std::uint64_t bytes_of(const NativeTensor& tensor) {
  return native::stored_data(tensor).bytes +
         (native::is_packed(tensor.dtype) ? native::stored_scales(tensor).bytes : 0);
}

void derive(Json& header) {
  const Json anchor = take(header, "anchor");
  const Json dtype = take(header, "dtype");
  const auto config = parse_native_config(anchor.dump(-1, ' ', false, Json::error_handler_t::replace), {});
  if (!config || config->layers > kMostLayers) return;
  const auto kind = parse_dtype(dtype.is_string() ? dtype.get<std::string>() : "").value_or(DType::kF32);
  std::uint64_t end = 0;
  const auto add = [&](const std::string& name, const native::Stored& stored) {
    end = (end + 63) / 64 * 64;
    if (!header.contains(name)) {
      header[name] = {{"dtype", stored.dtype}, {"shape", stored.shape}, {"data_offsets", {end, end + stored.bytes}}};
    }
    end += stored.bytes;
    if (const std::uint64_t over = end % 64; over != 0) {
      header["padding." + std::to_string(end)] = {
          {"dtype", "U8"}, {"shape", Json::array({64 - over})}, {"data_offsets", {end, end + 64 - over}}};
      end += 64 - over;
    }
  };
  for (const NativeTensor& tensor : native_tensors(*config, kind)) {
    if (bytes_of(tensor) > kMostBytes || end > kMostBytes) return;
    add(tensor.name, native::stored_data(tensor));
    if (native::is_packed(kind) && native::is_packed(tensor.dtype)) {
      add(tensor.name + native::kScales, native::stored_scales(tensor));
    }
  }
}

// The address sanitizer watches.
void require_rows(const native::Matrix& matrix) {
  std::vector<float> row(matrix.columns);
  for (const std::size_t index : {std::size_t{0}, matrix.rows / 2, matrix.rows - 1}) matrix.row(index, row);
}

void require_values(const float* values, std::size_t count) {
  if (values != nullptr) (void)std::vector<float>(values, values + count);
}

void require_layer(const NativeConfig& config, const native::Layer& layer) {
  for (const native::Matrix* matrix : {&layer.qkv, &layer.attention_out, &layer.gate, &layer.up, &layer.down}) {
    require_rows(*matrix);
  }
  for (const float* values : {layer.attention_norm, layer.attention_out_bias, layer.attention_post_norm, layer.ffn_norm,
                              layer.down_bias, layer.ffn_post_norm}) {
    require_values(values, config.d_model);
  }
  for (const float* values : {layer.gate_bias, layer.up_bias}) require_values(values, config.ffn_dim);
  require_values(layer.qkv_bias, config.query_width() + 2 * config.kv_width());
  const bool whole = config.qk_norm == QkNorm::kWidth;
  require_values(layer.q_norm, whole ? config.query_width() : config.head_dim);
  require_values(layer.k_norm, whole ? config.kv_width() : config.head_dim);
}

}  // namespace
}  // namespace edge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace edge::fuzz;
  std::vector<std::uint8_t> bytes(data, data + size);
  if (bytes.empty()) return 0;
  bytes[0] |= kDerive;  // `anchor` is no tensor
  const Range range = json_range(bytes);
  Json header = Json::parse(bytes.begin() + static_cast<std::ptrdiff_t>(range.begin),
                            bytes.begin() + static_cast<std::ptrdiff_t>(range.end), nullptr, false);
  const std::string anchor = take(header, "anchor").dump(-1, ' ', false, Json::error_handler_t::replace);
  const auto config = edge::parse_native_config(anchor, {});
  if (!config) {
    require_clear(config.error(), "manifest.json");
    return 0;
  }
  require(config->options.size() == config->layers, "each layer has options");
  for (const edge::NativeLayerOptions& layer : config->options) {
    require(layer.rope == edge::NativeLayerOptions::kNoRope || layer.rope < config->ropes.size(), "its rope is there");
    require(layer.window > 0, "a query sees itself");
  }
  if (config->layers > kMostLayers) return 0;
  const auto source = SafetensorsInput::of(
      bytes, {.alignment = edge::kPage, .filler = 0, .anchor = Anchor::kBegin, .hole = nullptr, .derive = derive});
  std::vector<std::byte> file(source.size());
  require(source.read(0, file).has_value(), "the input is as long as it says");
  const auto weights = edge::native::Weights::read(source, file.data(), *config);
  if (!weights) {
    require_clear(weights.error(), source.name());
    return 0;
  }
  require_rows(weights->embedding);
  require_rows(weights->head);
  require_values(weights->norm, config->d_model);
  for (const edge::native::Layer& layer : weights->layers) require_layer(*config, layer);
  return 0;
}
