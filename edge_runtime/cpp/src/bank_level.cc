#include "edge_runtime/bank_level.h"

#define XXH_INLINE_ALL  // no library to link
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>

#include "bank_metadata.h"
#include "safetensors_header.h"
#include "strict_json.h"

namespace edge {
namespace {

using Json = nlohmann::json;

// Caps that keep every product below 2^63, so that the arithmetic in the header needs no further checks.
constexpr std::uint64_t kMostColumns = 1U << 20U;
constexpr std::uint64_t kMostRowsPerBlock = 1U << 20U;
constexpr std::uint64_t kMostLayers = 1U << 12U;
constexpr std::uint64_t kMostTensors = 16;
constexpr std::uint64_t kMostNodes = 1ULL << 31U;  // row_of_node is I32
constexpr std::uint64_t kLargestBlock = 1ULL << 40U;
constexpr std::uint64_t kLargestFile = 1ULL << 62U;
constexpr int kDeepestList = 3;

std::uint64_t round_up(std::uint64_t value, std::uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

tl::unexpected<Error> bad(const std::string& path, const std::string& what) {
  return fail(ErrorCode::kBadFormat, path + ": " + what);
}

Result<std::vector<std::uint32_t>> parse_layers(const std::string& text, const std::string& path) {
  const Json json = parse_strict(text, kDeepestList);
  if (!json.is_array() || json.empty() || json.size() > kMostLayers) {
    return bad(path, "metadata 'anchor_layers' is not a list of layers");
  }
  std::vector<std::uint32_t> layers;
  for (const Json& item : json) {
    if (!item.is_number_unsigned() || item.get<std::uint64_t>() >= kMostLayers ||
        (!layers.empty() && item.get<std::uint32_t>() <= layers.back())) {
      return bad(path, "metadata 'anchor_layers' is not ascending");
    }
    layers.push_back(item.get<std::uint32_t>());
  }
  return layers;
}

Result<std::vector<TensorShape>> parse_tensors(const std::string& text, const std::string& path) {
  const Json json = parse_strict(text, kDeepestList);
  if (!json.is_array() || json.empty() || json.size() > kMostTensors) {
    return bad(path, "metadata 'tensors' is not a list of [name, [rows, columns]]");
  }
  std::vector<TensorShape> tensors;
  for (const Json& item : json) {
    const bool shaped = item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_array() &&
                        item[1].size() == 2 && item[1][0].is_number_unsigned() && item[1][1].is_number_unsigned();
    if (!shaped) {
      return bad(path, "metadata 'tensors' is not a list of [name, [rows, columns]]");
    }
    tensors.push_back({item[0].get<std::string>(), item[1][0].get<std::uint64_t>(), item[1][1].get<std::uint64_t>()});
  }
  return tensors;
}

Result<BankLevelSpec> parse_spec(const SafetensorsHeader& header, const std::string& path) {
  const auto format = metadata_text(header, path, "format");
  if (!format || *format != "edge-runtime.bank") {
    return bad(path, "not a bank level file (metadata 'format' is not edge-runtime.bank)");
  }
  const auto version = metadata_number(header, path, "version", 1, std::numeric_limits<std::uint32_t>::max());
  if (!version) {
    return tl::make_unexpected(version.error());
  }
  if (*version != 1) {
    return fail(ErrorCode::kUnsupported, path + ": bank version " + std::to_string(*version) +
                                             "; this build reads version 1: update edge-runtime");
  }
  const auto kind = metadata_text(header, path, "kind");
  const auto level = metadata_number(header, path, "level", 0, 8);
  const auto fanout = metadata_number(header, path, "fanout", 2, 256);
  const auto d_model = metadata_number(header, path, "d_model", 1, kMostColumns);
  const auto rows_per_block = metadata_number(header, path, "rows_per_block", 1, kMostRowsPerBlock);
  const auto dtype_text = metadata_text(header, path, "dtype");
  const auto layers_text = metadata_text(header, path, "anchor_layers");
  const auto tensors_text = metadata_text(header, path, "tensors");
  for (const auto* number : {&level, &fanout, &d_model, &rows_per_block}) {
    if (!*number) {
      return tl::make_unexpected(number->error());
    }
  }
  for (const auto* text : {&kind, &dtype_text, &layers_text, &tensors_text}) {
    if (!*text) {
      return tl::make_unexpected(text->error());
    }
  }
  const auto dtype = parse_dtype(*dtype_text);
  if (!dtype) {
    return fail(ErrorCode::kUnsupported, path + ": unknown dtype '" + printable(*dtype_text) + "'");
  }
  auto layers = parse_layers(*layers_text, path);
  if (!layers) {
    return tl::make_unexpected(layers.error());
  }
  auto tensors = parse_tensors(*tensors_text, path);
  if (!tensors) {
    return tl::make_unexpected(tensors.error());
  }
  BankLevelSpec spec;
  spec.kind = *kind;
  spec.level = static_cast<std::uint32_t>(*level);
  spec.fanout = static_cast<std::uint32_t>(*fanout);
  spec.dtype = *dtype;
  spec.d_model = static_cast<std::uint32_t>(*d_model);
  spec.rows_per_block = static_cast<std::uint32_t>(*rows_per_block);
  spec.anchor_layers = std::move(*layers);
  spec.tensors = std::move(*tensors);
  return spec;
}

Status check_layout(BankLevelSpec& spec, const SafetensorsHeader& header, const std::string& path) {
  if (header.tensors.size() != 3) {
    return bad(path, "it must hold exactly the tensors blocks, xxh3 and row_of_node");
  }
  for (const char* name : {"blocks", "xxh3", "row_of_node"}) {
    if (!header.tensors.contains(name)) {
      return bad(path, std::string("the tensor '") + name + "' is missing");
    }
  }
  const TensorEntry& blocks = header.tensors.at("blocks");
  const TensorEntry& xxh3 = header.tensors.at("xxh3");
  const TensorEntry& row_of_node = header.tensors.at("row_of_node");
  if (blocks.dtype != "U8" || blocks.shape.size() != 2 || xxh3.dtype != "U64" || xxh3.shape.size() != 2 ||
      row_of_node.dtype != "I32" || row_of_node.shape.size() != 1) {
    return bad(path, "blocks, xxh3 and row_of_node must be U8 [rows, stride], U64 [rows, layers] and I32 [nodes]");
  }
  // Equal begins are possible where a tensor is empty, so both comparisons are weak.
  if (blocks.begin != 0 || xxh3.begin < blocks.end || row_of_node.begin < xxh3.end) {
    return bad(path, "blocks, xxh3 and row_of_node must follow in this order");
  }
  if (header.data_start % kPage != 0) {
    return bad(path, "its data does not start at a multiple of 16,384");
  }
  spec.rows = blocks.shape[0];
  if (auto status = check_spec(spec); !status) {
    return fail(status.error().code, path + ": " + status.error().message);
  }
  if (blocks.shape[1] != spec.stride()) {
    return bad(path, "the stride is " + std::to_string(blocks.shape[1]) + ", its metadata make it " +
                         std::to_string(spec.stride()));
  }
  for (const auto& [key, value] :
       {std::pair("scale_bytes", spec.scale_bytes()), std::pair("layer_bytes", spec.layer_bytes())}) {
    const auto stated = metadata_number(header, path, key, 0, kLargestBlock);
    if (!stated) {
      return tl::make_unexpected(stated.error());
    }
    if (*stated != value) {
      return bad(path, std::string("metadata '") + key + "' does not agree with the others");
    }
  }
  if (xxh3.shape[0] != spec.rows || xxh3.shape[1] != spec.layers() || row_of_node.shape[0] != spec.nodes) {
    return bad(path, "the shapes of xxh3 or row_of_node do not agree with rows, layers and nodes");
  }
  return {};
}

Status check_rows(const std::vector<std::int32_t>& row_of_node, std::uint64_t rows, const std::string& path) {
  std::vector<bool> named(rows, false);
  for (std::size_t node = 0; node < row_of_node.size(); ++node) {
    const std::int32_t row = row_of_node[node];
    if (row == -1) {
      continue;
    }
    if (row < -1 || static_cast<std::uint64_t>(row) >= rows || named[static_cast<std::size_t>(row)]) {
      return bad(path, "row_of_node[" + std::to_string(node) + "] is " + std::to_string(row) +
                           ": outside the file, or named twice");
    }
    named[static_cast<std::size_t>(row)] = true;
  }
  if (std::find(named.begin(), named.end(), false) != named.end()) {
    return bad(path, "a row belongs to no node");
  }
  return {};
}

template <typename T>
T largest(std::span<const std::byte> bytes) {
  T result = 0;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(T)) {
    T value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof(T));
    result = std::max(result, value);
  }
  return result;
}

}  // namespace

std::uint64_t BankLevelSpec::layer_scale_bytes() const {
  std::uint64_t bytes = 0;
  for (const TensorShape& tensor : tensors) {
    bytes += tensor.rows * row_scale_bytes(dtype, tensor.columns);
  }
  return bytes;
}

std::uint64_t BankLevelSpec::scale_bytes() const { return round_up(layers() * layer_scale_bytes(), 64); }

std::uint64_t BankLevelSpec::layer_bytes() const {
  std::uint64_t bytes = 0;
  for (const TensorShape& tensor : tensors) {
    bytes += tensor.rows * row_bytes(dtype, tensor.columns);
  }
  return round_up(bytes, 64);
}

std::uint64_t BankLevelSpec::stride() const { return round_up(scale_bytes() + layers() * layer_bytes(), kPage); }

Status check_spec(BankLevelSpec& spec) {
  static const std::vector<std::string> kinds = {"ffn", "lora_qk", "lora_vo", "lora_ffn", "kv"};
  if (std::find(kinds.begin(), kinds.end(), spec.kind) == kinds.end()) {
    return fail(ErrorCode::kUnsupported, "unknown kind of memory '" + printable(spec.kind) + "'");
  }
  spec.nodes = 1;
  for (std::uint32_t level = 0; level < spec.level; ++level) {
    spec.nodes *= spec.fanout;
    if (spec.nodes > kMostNodes) {
      return fail(ErrorCode::kBadFormat, "fanout^level is above 2^31 nodes");
    }
  }
  if (spec.rows > spec.nodes) {
    return fail(ErrorCode::kBadFormat, "more rows than nodes");
  }
  for (const TensorShape& tensor : spec.tensors) {
    if (tensor.rows == 0 || tensor.rows > kMostRowsPerBlock || tensor.columns == 0 || tensor.columns > kMostColumns) {
      return fail(ErrorCode::kBadFormat, "tensor '" + printable(tensor.name) + "' has an extent outside 1..2^20");
    }
    if (spec.dtype == DType::kI4 && tensor.columns % kI4Group != 0) {
      return fail(ErrorCode::kBadFormat, "i4 needs rows of a multiple of 32 elements; tensor '" +
                                             printable(tensor.name) + "' has " + std::to_string(tensor.columns) +
                                             ": use i8");
    }
  }
  if (spec.layers() == 0 || spec.layers() > kMostLayers || spec.layer_bytes() > kLargestBlock / kMostLayers) {
    return fail(ErrorCode::kBadFormat, "no layers, or blocks of more than 2^40 bytes");
  }
  if (spec.rows > kLargestFile / spec.stride()) {
    return fail(ErrorCode::kBadFormat, "a file of more than 2^62 bytes");
  }
  if (spec.kind == "ffn") {
    const bool shaped = spec.tensors.size() == 3 &&
                        std::all_of(spec.tensors.begin(), spec.tensors.end(), [&](const TensorShape& tensor) {
                          return tensor.rows == spec.rows_per_block && tensor.columns == spec.d_model;
                        });
    if (!shaped || spec.tensors[0].name != "w1" || spec.tensors[1].name != "w2" || spec.tensors[2].name != "w3") {
      return fail(ErrorCode::kBadFormat, "ffn memories have the tensors w1, w2, w3 of [rows_per_block, d_model]");
    }
  }
  return {};
}

Result<BankLevelSpec> ffn_level_spec(std::uint32_t level, std::uint32_t fanout, DType dtype, std::uint32_t d_model,
                                     std::uint32_t rows_per_block, std::vector<std::uint32_t> anchor_layers,
                                     std::uint64_t rows) {
  BankLevelSpec spec;
  spec.kind = "ffn";
  spec.level = level;
  spec.fanout = fanout;
  spec.dtype = dtype;
  spec.d_model = d_model;
  spec.rows_per_block = rows_per_block;
  spec.anchor_layers = std::move(anchor_layers);
  for (const char* tensor : {"w1", "w2", "w3"}) {
    spec.tensors.push_back({tensor, rows_per_block, d_model});
  }
  spec.rows = rows;
  if (level > 8 || fanout < 2 || fanout > 256 ||
      std::adjacent_find(spec.anchor_layers.begin(), spec.anchor_layers.end(), std::greater_equal<>()) !=
          spec.anchor_layers.end()) {
    return fail(ErrorCode::kInvalidArgument, "level must be 0..8, fanout 2..256, anchor_layers ascending");
  }
  if (auto status = check_spec(spec); !status) {
    return fail(ErrorCode::kInvalidArgument, status.error().message);
  }
  return spec;
}

Result<BankLevel> BankLevel::open(const std::string& path) {
  const auto header = read_safetensors_header(path);
  if (!header) {
    return tl::make_unexpected(header.error());
  }
  auto spec = parse_spec(*header, path);
  if (!spec) {
    return tl::make_unexpected(spec.error());
  }
  if (auto status = check_layout(*spec, *header, path); !status) {
    return tl::make_unexpected(status.error());
  }
  BankLevel level;
  level.path_ = path;
  level.spec_ = std::move(*spec);
  level.data_start_ = header->data_start;
  level.file_bytes_ = header->file_bytes;
  // The tables' sizes were checked against the file's, so these allocations are bounded by it.
  level.xxh3_.resize(level.spec_.rows * level.spec_.layers());
  level.row_of_node_.resize(level.spec_.nodes);
  const auto xxh3_offset = header->data_start + header->tensors.at("xxh3").begin;
  const auto rows_offset = header->data_start + header->tensors.at("row_of_node").begin;
  if (auto status = read_exactly(path, xxh3_offset, std::as_writable_bytes(std::span(level.xxh3_))); !status) {
    return tl::make_unexpected(status.error());
  }
  if (auto status = read_exactly(path, rows_offset, std::as_writable_bytes(std::span(level.row_of_node_))); !status) {
    return tl::make_unexpected(status.error());
  }
  if (auto status = check_rows(level.row_of_node_, level.spec_.rows, path); !status) {
    return tl::make_unexpected(status.error());
  }
  return level;
}

bool scales_are_valid(const BankLevelSpec& spec, std::span<const std::byte> block, std::uint64_t layer) {
  const auto scales = block.subspan(spec.scale_offset(layer), spec.layer_scale_bytes());
  // The bits of floats that are neither negative nor infinite nor NaN are below those of infinity.
  return spec.dtype == DType::kI8 ? largest<std::uint32_t>(scales) < 0x7F800000U
                                  : largest<std::uint16_t>(scales) < 0x7C00U;
}

std::uint64_t layer_checksum(const BankLevelSpec& spec, std::span<const std::byte> block, std::uint64_t layer) {
  XXH3_state_t state;
  XXH3_INITSTATE(&state);
  XXH3_64bits_reset(&state);
  XXH3_64bits_update(&state, block.data() + spec.scale_offset(layer), spec.layer_scale_bytes());
  XXH3_64bits_update(&state, block.data() + spec.layer_offset(layer), spec.layer_bytes());
  return XXH3_64bits_digest(&state);
}

}  // namespace edge
