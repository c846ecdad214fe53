#include "edge_runtime/bank_level.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "bank_metadata.h"
#include "byte_source.h"
#include "kernels/kernels.h"
#include "safetensors_header.h"
#include "strict_json.h"

namespace edge {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMostTensors = 16;
constexpr int kDeepestList = 3;

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
  // Before the rest: what a kind or dtype of later builds makes of the other values is not for this one to judge.
  const auto kind = metadata_text(header, path, "kind");
  const auto dtype_text = metadata_text(header, path, "dtype");
  for (const auto* text : {&kind, &dtype_text}) {
    if (!*text) {
      return tl::make_unexpected(text->error());
    }
  }
  if (auto status = check_kind(*kind); !status) {
    return fail(status.error().code, path + ": " + status.error().message);
  }
  const auto dtype = parse_dtype(*dtype_text);
  if (!dtype) {
    return fail(ErrorCode::kUnsupported, path + ": unknown dtype '" + printable(*dtype_text) + "'");
  }
  const auto level = metadata_number(header, path, "level", 0, 8);
  const auto fanout = metadata_number(header, path, "fanout", 2, 256);
  const auto d_model = metadata_number(header, path, "d_model", 1, kMostColumns);
  const auto rows_per_block = metadata_number(header, path, "rows_per_block", 1, kMostRowsPerBlock);
  const auto layers_text = metadata_text(header, path, "anchor_layers");
  const auto tensors_text = metadata_text(header, path, "tensors");
  for (const auto* number : {&level, &fanout, &d_model, &rows_per_block}) {
    if (!*number) {
      return tl::make_unexpected(number->error());
    }
  }
  for (const auto* text : {&layers_text, &tensors_text}) {
    if (!*text) {
      return tl::make_unexpected(text->error());
    }
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

Result<BankLevel> BankLevel::open(const std::string& path) {
  const auto source = open_file(path);
  if (!source) {
    return tl::make_unexpected(source.error());
  }
  return read(**source);
}

Result<BankLevel> BankLevel::read(const ByteSource& source) {
  const std::string& path = source.name();
  const auto header = read_safetensors_header(source);
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
  if (auto status = source.read(xxh3_offset, std::as_writable_bytes(std::span(level.xxh3_))); !status) {
    return tl::make_unexpected(status.error());
  }
  if (auto status = source.read(rows_offset, std::as_writable_bytes(std::span(level.row_of_node_))); !status) {
    return tl::make_unexpected(status.error());
  }
  if (auto status = check_rows(level.row_of_node_, level.spec_.rows, path); !status) {
    return tl::make_unexpected(status.error());
  }
  return level;
}

BankLevel BankLevel::blank(std::string name, BankLevelSpec spec) {
  BankLevel level;
  level.path_ = std::move(name);
  level.spec_ = std::move(spec);
  level.data_start_ = kPage;
  level.xxh3_.resize(level.spec_.rows * level.spec_.layers());
  level.row_of_node_.resize(level.spec_.nodes);
  std::iota(level.row_of_node_.begin(), level.row_of_node_.end(), 0);
  level.file_bytes_ = level.block_offset(level.spec_.rows) +
                      level.spec_.rows * level.spec_.layers() * sizeof(std::uint64_t) +
                      level.spec_.nodes * sizeof(std::int32_t);
  return level;
}

bool scales_are_valid(const BankLevelSpec& spec, std::span<const std::byte> block, std::uint64_t layer) {
  const auto scales = block.subspan(spec.scale_offset(layer), spec.layer_scale_bytes());
  // The bits of floats that are neither negative nor infinite nor NaN are below those of infinity.
  return spec.dtype == DType::kI8 ? largest<std::uint32_t>(scales) < 0x7F800000U
                                  : largest<std::uint16_t>(scales) < 0x7C00U;
}

std::uint64_t layer_checksum(const BankLevelSpec& spec, std::span<const std::byte> block, std::uint64_t layer) {
  return layer_checksum(block.subspan(spec.scale_offset(layer), spec.layer_scale_bytes()),
                        block.subspan(spec.layer_offset(layer), spec.layer_bytes()));
}

std::uint64_t layer_checksum(std::span<const std::byte> scales, std::span<const std::byte> data) {
  return kernels::active_kernels().checksum(scales.data(), scales.size(), data.data(), data.size());
}

}  // namespace edge
