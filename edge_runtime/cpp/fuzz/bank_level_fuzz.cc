// Level files: a hostile one is refused with a clear line; of one that is accepted, nothing reaches outside it.
#include <algorithm>
#include <charconv>
#include <set>
#include <string>
#include <vector>

#include "bank_metadata.h"
#include "edge_runtime/bank_level.h"
#include "edge_runtime/memory_ffn.h"
#include "safetensors_input.h"

namespace edge::fuzz {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kLargestTried = 1U << 20U;  // bytes of a block that is read through the spec's offsets

std::string text_of(const Json& metadata, const char* key) {
  return metadata.contains(key) && metadata[key].is_string() ? metadata[key].get<std::string>() : "";
}

std::uint32_t number_of(const Json& metadata, const char* key) {
  const std::string text = text_of(metadata, key);
  std::uint32_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// The spec that the metadata mean, as far as they mean one.
BankLevelSpec meant(const Json& header) {
  const Json metadata = header.value("__metadata__", Json::object());
  BankLevelSpec spec;
  if (!metadata.is_object()) {
    return spec;
  }
  spec.kind = text_of(metadata, "kind");
  spec.level = std::min(number_of(metadata, "level"), 8U);
  spec.fanout = number_of(metadata, "fanout");
  spec.dtype = parse_dtype(text_of(metadata, "dtype")).value_or(DType::kF32);
  spec.d_model = number_of(metadata, "d_model");
  spec.rows_per_block = number_of(metadata, "rows_per_block");
  const Json layers = Json::parse(text_of(metadata, "anchor_layers"), nullptr, false);
  spec.anchor_layers.resize(layers.is_array() ? layers.size() : 0);
  const Json tensors = Json::parse(text_of(metadata, "tensors"), nullptr, false);
  for (const Json& tensor : tensors.is_array() ? tensors : Json::array()) {
    const bool shaped = tensor.is_array() && tensor.size() == 2 && tensor[1].is_array() && tensor[1].size() == 2 &&
                        tensor[1][0].is_number_unsigned() && tensor[1][1].is_number_unsigned();
    if (shaped) {
      spec.tensors.push_back({"", tensor[1][0].get<std::uint64_t>(), tensor[1][1].get<std::uint64_t>()});
    }
  }
  if (spec.kind == "ffn") {
    spec.tensors.clear();
    for (const char* name : {"w1", "w2", "w3"}) {
      spec.tensors.push_back({name, spec.rows_per_block, spec.d_model});
    }
  }
  const Json::json_pointer rows("/blocks/shape/0");
  spec.rows = header.contains(rows) && header[rows].is_number_unsigned() ? header[rows].get<std::uint64_t>() : 0;
  return spec;
}

void derive(Json& header) {
  BankLevelSpec spec = meant(header);
  if (!check_spec(spec)) {
    return;
  }
  Json& metadata = header["__metadata__"];
  metadata["scale_bytes"] = std::to_string(spec.scale_bytes());
  metadata["layer_bytes"] = std::to_string(spec.layer_bytes());
  if (spec.kind == "ffn") {
    Json tensors;
    for (const TensorShape& tensor : spec.tensors) {
      tensors.push_back({tensor.name, {tensor.rows, tensor.columns}});
    }
    metadata["tensors"] = tensors.dump();
  }
  const std::uint64_t blocks = spec.rows * spec.stride();
  const std::uint64_t xxh3 = blocks + spec.rows * spec.layers() * 8;
  header["blocks"] = {{"dtype", "U8"}, {"shape", {spec.rows, spec.stride()}}, {"data_offsets", {0, blocks}}};
  header["xxh3"] = {{"dtype", "U64"}, {"shape", {spec.rows, spec.layers()}}, {"data_offsets", {blocks, xxh3}}};
  header["row_of_node"] = {
      {"dtype", "I32"}, {"shape", Json::array({spec.nodes})}, {"data_offsets", {xxh3, xxh3 + spec.nodes * 4}}};
}

void require_in_file(const BankLevel& level) {
  const BankLevelSpec& spec = level.spec();
  require(level.data_start() % kPage == 0 && spec.stride() % kPage == 0, "blocks lie on pages");
  std::set<std::int32_t> rows;
  for (std::uint64_t node = 0; node < spec.nodes; ++node) {
    const std::int32_t row = level.row_of(node);
    require(row == -1 || rows.insert(row).second, "no row is named twice");
  }
  require(rows.size() == spec.rows, "every row is named");
  for (const std::int32_t row : rows) {
    const auto index = static_cast<std::uint64_t>(row);
    require(row >= 0 && index < spec.rows, "a row lies in the table");
    require(level.block_offset(index) + spec.stride() <= level.file_bytes(), "a block lies in the file");
    (void)level.checksum(index, spec.layers() - 1);
  }
}

// Every byte that the spec's offsets name lies in a block of exactly stride() bytes: the address sanitizer watches.
void require_in_block(const BankLevelSpec& spec) {
  if (spec.stride() > kLargestTried) {
    return;
  }
  std::vector<std::byte> block(spec.stride());
  block.shrink_to_fit();
  const std::vector<float> x(spec.d_model, 1.0F);
  std::vector<float> y(spec.d_model);
  for (std::uint64_t layer = 0; layer < spec.layers(); ++layer) {
    (void)layer_checksum(spec, block, layer);
    require(scales_are_valid(spec, block, layer), "zero is a valid scale");
    if (spec.kind != "ffn") {
      continue;
    }
    const MemoryRows rows{spec.dtype, spec.rows_per_block, block.data() + spec.layer_offset(layer),
                          block.data() + spec.scale_offset(layer)};
    const std::span blocks(&rows, 1);
    std::vector<float> scratch(memory_ffn_scratch(blocks, 1, spec.d_model));
    memory_ffn(blocks, x.data(), 1, spec.d_model, y.data(), scratch);
    const float* const not_zero = std::find_if(y.data(), y.data() + y.size(), [](float v) { return v != 0; });
    require(spec.dtype == DType::kI4 || not_zero == y.data() + y.size(), "a memory of zeros adds nothing");
  }
}

}  // namespace
}  // namespace edge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace edge::fuzz;
  const auto source = SafetensorsInput::of({data, size}, {.alignment = edge::kPage,
                                                          .filler = 0xFF,  // nodes without a block
                                                          .anchor = Anchor::kEnd,
                                                          .hole = "blocks",
                                                          .derive = derive});
  const auto level = edge::BankLevel::read(source);
  if (!level) {
    require_clear(level.error(), source.name());
    return 0;
  }
  require_in_file(*level);
  require_in_block(level->spec());
  return 0;
}
