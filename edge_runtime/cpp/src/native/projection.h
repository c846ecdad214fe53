// Products of a matrix with tokens, shared among threads.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "edge_runtime/parallel.h"
#include "kernels/kernels.h"
#include "native/limits.h"
#include "native/weights.h"

namespace edge::native {

// Memory that begins a cache line; grows, and never shrinks.
class AlignedBytes {
 public:
  std::byte* of_size(std::size_t bytes);

 private:
  std::vector<std::byte> bytes_;
};

class Projection {
 public:
  Projection(const kernels::Kernels& kernels, Parallel& parallel) : kernels_(kernels), parallel_(parallel) {}

  // y[t][row] = matrix[row] . x[t]. REQUIRES tokens <= kPrefill.
  void operator()(const Matrix& matrix, const float* x, std::size_t tokens, float* y);

 private:
  kernels::Tokens prepared(const Matrix& matrix, const float* x, std::size_t tokens);

  const kernels::Kernels& kernels_;
  Parallel& parallel_;
  AlignedBytes bytes_;
};

}  // namespace edge::native
