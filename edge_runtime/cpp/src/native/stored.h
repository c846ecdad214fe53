// How a tensor appears in a safetensors file, which knows no 4-bit values, no scales and no packed rows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "edge_runtime/native_config.h"
#include "kernels/packed.h"

namespace edge::native {

inline constexpr const char* kFormat = "edge-runtime.native";
inline constexpr std::uint64_t kVersion = 2;
inline constexpr const char* kScales = ".scales";  // behind the name of the tensor that they belong to

struct Stored {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::uint64_t bytes = 0;
};

// Packed in blocks of 16 rows (kernels/packed.h), with scales in a tensor of their own.
inline bool is_packed(DType dtype) { return dtype == DType::kI8 || dtype == DType::kI4; }

inline std::uint64_t packed_blocks(std::uint64_t rows) {
  return (rows + kernels::kPackedRows - 1) / kernels::kPackedRows;
}

inline Stored stored_data(const NativeTensor& tensor) {
  constexpr const char* kNames[] = {"F32", "F16", "BF16", "I8", "U8"};
  const char* const name = kNames[static_cast<std::size_t>(tensor.dtype)];
  const std::uint64_t rows = tensor.rows();
  const std::uint64_t columns = tensor.columns();
  if (!is_packed(tensor.dtype)) return {name, tensor.shape, rows * row_bytes(tensor.dtype, columns)};
  const std::uint64_t blocks = packed_blocks(rows);
  const std::uint64_t words = kernels::kPackedColumns / kernels::kPackedWord / (tensor.dtype == DType::kI4 ? 2 : 1);
  return {name,
          {blocks, kernels::packed_groups(columns), words, kernels::kPackedRows, kernels::kPackedWord},
          blocks * kernels::packed_block_bytes(tensor.dtype, columns)};
}

// REQUIRES is_packed.
inline Stored stored_scales(const NativeTensor& tensor) {
  const std::uint64_t blocks = packed_blocks(tensor.rows());
  const std::uint64_t bytes = blocks * kernels::packed_scale_bytes(tensor.dtype, tensor.columns());
  if (tensor.dtype == DType::kI8) return {"F32", {blocks, kernels::kPackedRows}, bytes};
  return {"F16", {blocks, kernels::packed_groups(tensor.columns()), kernels::kPackedRows}, bytes};
}

}  // namespace edge::native
