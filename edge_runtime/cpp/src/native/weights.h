// anchor.native.safetensors, mapped: where every matrix of the decoder lies. Nothing is copied.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "edge_runtime/dtype.h"
#include "edge_runtime/native_config.h"

namespace edge {
class ByteSource;
class MappedBytes;
}  // namespace edge

namespace edge::native {

// Float rows one after another, or packed ones (kernels/packed.h) and their scales.
struct Matrix {
  DType dtype = DType::kF32;
  std::size_t rows = 0;
  std::size_t columns = 0;
  const std::byte* data = nullptr;
  const std::byte* scales = nullptr;  // null for float dtypes

  // out[i] for i < columns
  void row(std::size_t index, std::span<float> out) const;
};

// Gains and biases are null where the anchor has none.
struct Layer {
  const float* attention_norm = nullptr;
  const float* qkv_bias = nullptr;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  const float* attention_out_bias = nullptr;
  const float* attention_post_norm = nullptr;
  const float* ffn_norm = nullptr;
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;
  const float* ffn_post_norm = nullptr;
  Matrix qkv;
  Matrix attention_out;
  Matrix gate;  // W1, a row a neuron
  Matrix up;    // W2, likewise
  Matrix down;  // W3, a column a neuron
};

// Immutable; the pointers live as long as it does.
struct Weights {
  // REQUIRES that the file is never truncated in place while it is open. kNotFound, kIo, kTruncated, kBadFormat,
  // kUnsupported.
  static Result<Weights> open(const std::string& path, const NativeConfig& config);
  // The same of a file whose bytes lie at `data` and stay there. The seam for fuzzing.
  static Result<Weights> read(const ByteSource& source, const std::byte* data, const NativeConfig& config);

  Matrix embedding;
  Matrix head;  // the embedding where they are tied
  const float* norm = nullptr;
  std::vector<Layer> layers;
  std::shared_ptr<const MappedBytes> file;
};

}  // namespace edge::native
