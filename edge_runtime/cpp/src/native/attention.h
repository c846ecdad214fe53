// Causal attention over a KV cache.
#pragma once

#include <cstddef>
#include <memory>

#include "edge_runtime/native_config.h"
#include "edge_runtime/parallel.h"
#include "kernels/kernels.h"

namespace edge::native {

// Keys and values of one context, in f32 or f16: for each layer and head the values of a position after those of the
// last, and keys in groups of kKeysTogether positions, as the kernels read them.
class KvCache {
 public:
  KvCache(const NativeConfig& config, DType dtype);

  // Full; pages that no token has reached are not resident.
  static std::uint64_t bytes(const NativeConfig& config, DType dtype);
  DType dtype() const { return dtype_; }
  std::byte* keys(std::size_t layer, std::size_t head) const { return place(layer, 0, head); }
  std::byte* values(std::size_t layer, std::size_t head) const { return place(layer, 1, head); }
  // Write a head's key or value of one position. Those of other positions may be written at the same time.
  void store_key(const kernels::Kernels& kernels, std::byte* keys, std::size_t position, const float* key) const;
  void store_value(const kernels::Kernels& kernels, std::byte* values, std::size_t position, const float* value) const;

 private:
  std::byte* place(std::size_t layer, std::size_t which, std::size_t head) const {
    return data_.get() + ((layer * 2 + which) * heads_ + head) * head_bytes_;
  }

  // A vector in the cache's dtype.
  void convert(const kernels::Kernels& kernels, const float* vector, std::byte* out) const;

  DType dtype_;
  std::size_t heads_;
  std::size_t head_dim_;
  std::size_t head_bytes_;
  std::unique_ptr<std::byte[]> data_;
};

// out[t] of queries [tokens, heads * head_dim], the first of which stands at `position`, over the positions of the
// layer's window up to its own, whose keys and values are in the cache. A token's result is bitwise the same however
// tokens are grouped.
void attend(const kernels::Kernels& kernels, const NativeConfig& config, const KvCache& cache, std::size_t layer,
            const float* queries, std::size_t tokens, std::size_t position, float* out, Parallel& parallel);

}  // namespace edge::native
