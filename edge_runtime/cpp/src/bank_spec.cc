// The sizes inside a block, and which specs the format allows (docs/bank-format.md).
#include <algorithm>
#include <array>
#include <functional>
#include <string_view>
#include <utility>

#include "bank_metadata.h"
#include "strict_json.h"

namespace edge {
namespace {

constexpr std::uint64_t kMostNodes = 1ULL << 31U;  // row_of_node is I32
constexpr std::uint64_t kLargestFile = 1ULL << 62U;

std::uint64_t round_up(std::uint64_t value, std::uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
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

Status check_kind(const std::string& kind) {
  constexpr std::array<std::string_view, 5> kKinds = {"ffn", "lora_qk", "lora_vo", "lora_ffn", "kv"};
  if (std::find(kKinds.begin(), kKinds.end(), kind) == kKinds.end()) {
    return fail(ErrorCode::kUnsupported, "unknown kind of memory '" + printable(kind) + "'");
  }
  return {};
}

Status check_spec(BankLevelSpec& spec) {
  if (auto status = check_kind(spec.kind); !status) {
    return status;
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
  const std::uint64_t stride = spec.stride();
  if (stride == 0) {
    return fail(ErrorCode::kBadFormat, "no tensors");
  }
  if (spec.rows > kLargestFile / stride) {
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

Result<BankLevelSpec> level_spec(std::string kind, std::vector<TensorShape> tensors, std::uint32_t level,
                                 std::uint32_t fanout, DType dtype, std::uint32_t d_model, std::uint32_t rows_per_block,
                                 std::vector<std::uint32_t> anchor_layers, std::uint64_t rows) {
  BankLevelSpec spec;
  spec.kind = std::move(kind);
  spec.level = level;
  spec.fanout = fanout;
  spec.dtype = dtype;
  spec.d_model = d_model;
  spec.rows_per_block = rows_per_block;
  spec.anchor_layers = std::move(anchor_layers);
  spec.tensors = std::move(tensors);
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

Result<BankLevelSpec> ffn_level_spec(std::uint32_t level, std::uint32_t fanout, DType dtype, std::uint32_t d_model,
                                     std::uint32_t rows_per_block, std::vector<std::uint32_t> anchor_layers,
                                     std::uint64_t rows) {
  std::vector<TensorShape> tensors;
  for (const char* tensor : {"w1", "w2", "w3"}) {
    tensors.push_back({tensor, rows_per_block, d_model});
  }
  return level_spec("ffn", std::move(tensors), level, fanout, dtype, d_model, rows_per_block, std::move(anchor_layers),
                    rows);
}

}  // namespace edge
