// How the rows of a tensor appear in a safetensors file, which knows no 4-bit rows and no scales.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "edge_runtime/native_config.h"

namespace edge::native {

inline constexpr const char* kFormat = "edge-runtime.native";
inline constexpr std::uint64_t kVersion = 1;
inline constexpr const char* kScales = ".scales";  // behind the name of the tensor that they belong to

struct Stored {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::uint64_t bytes = 0;
};

inline bool has_scales(DType dtype) { return dtype == DType::kI8 || dtype == DType::kI4; }

inline Stored stored_data(const NativeTensor& tensor) {
  constexpr const char* kNames[] = {"F32", "F16", "BF16", "I8", "U8"};
  Stored stored{kNames[static_cast<std::size_t>(tensor.dtype)], tensor.shape, 0};
  if (tensor.dtype == DType::kI4) stored.shape.back() /= 2;
  stored.bytes = tensor.rows() * row_bytes(tensor.dtype, tensor.columns());
  return stored;
}

// REQUIRES has_scales.
inline Stored stored_scales(const NativeTensor& tensor) {
  const bool groups = tensor.dtype == DType::kI4;
  Stored stored{groups ? "F16" : "F32", tensor.shape, tensor.rows() * row_scale_bytes(tensor.dtype, tensor.columns())};
  if (groups) {
    stored.shape.back() /= kI4Group;
  } else {
    stored.shape.pop_back();
  }
  return stored;
}

}  // namespace edge::native
