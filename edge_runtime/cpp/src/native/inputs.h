// Vectors in the form in which a matrix's rows meet them: f32 beside float rows, groups of 8 bits beside packed ones.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/packed.h"

namespace edge::native {

class Inputs {
 public:
  explicit Inputs(const kernels::PackedKernels& packed) : packed_(packed) {}

  // Room for `tokens` vectors of `columns` values, for matrices of this dtype. What was there is lost.
  void shape(DType dtype, std::size_t columns, std::size_t tokens);
  // A part of a token's vector, from `first` on, a multiple of 32; a part that is no multiple of 32 long ends the
  // vector. Threads may set distinct parts at once.
  void set(std::size_t token, std::size_t first, std::size_t count, const float* x);

  std::size_t tokens() const { return tokens_; }
  std::size_t columns() const { return columns_; }
  kernels::PackedTokens packed(std::size_t first, std::size_t count) const {
    return {groups_.data() + first * group_count_, group_count_, count};
  }
  kernels::Tokens floats(std::size_t first, std::size_t count) const {
    return {reinterpret_cast<const std::byte*>(floats_.data() + first * columns_), columns_ * sizeof(float), count};
  }

 private:
  const kernels::PackedKernels& packed_;
  bool is_packed_ = false;
  std::size_t tokens_ = 0;
  std::size_t columns_ = 0;
  std::size_t group_count_ = 0;  // of a token
  std::vector<kernels::PackedGroup> groups_;
  std::vector<float> floats_;
};

}  // namespace edge::native
