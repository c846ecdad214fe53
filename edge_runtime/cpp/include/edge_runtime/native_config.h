// What the native engine must know of an anchor: the manifest's `anchor` object (docs/bundle-format.md), checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/dtype.h"
#include "edge_runtime/result.h"

namespace edge {

struct NativeConfig {
  std::uint32_t layers = 0;
  std::uint32_t d_model = 0;
  std::uint32_t heads = 0;
  std::uint32_t kv_heads = 0;  // divides heads
  std::uint32_t head_dim = 0;  // even
  std::uint32_t ffn_dim = 0;
  std::uint32_t vocab_size = 0;
  std::uint32_t context_length = 0;
  float rope_theta = 0;
  bool centred_norm = false;  // LayerNorm with a gain only; otherwise RMSNorm
  float norm_eps = 0;
  bool qk_norm = false;  // over the whole width of all heads, before they are split
  bool tied_embeddings = false;
  std::vector<std::uint32_t> memory_layers;  // the anchor's layers that carry memory, ascending

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

// All of them in the file's order, which is the order in which a token reads them: matrices in `dtype`, gains in f32.
std::vector<NativeTensor> native_tensors(const NativeConfig& config, DType dtype);

}  // namespace edge
