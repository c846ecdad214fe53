// A decoder's FFN: y = W3 (a(W1 x) * (W2 x)), a its activation, with FFN memory as further neurons of it, whose
// activation is silu (Pouransari et al. 2025, section 2, appendix I).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "edge_runtime/memory_ffn.h"
#include "edge_runtime/parallel.h"
#include "native/inputs.h"
#include "native/product.h"
#include "native/weights.h"

namespace edge::native {

class FeedForward {
 public:
  FeedForward(const kernels::Kernels& floats, const kernels::PackedKernels& packed, Parallel& parallel,
              Activation activation)
      : gate_(activation == Activation::kSilu ? floats.swiglu : floats.geglu),
        products_(floats, packed),
        parallel_(parallel),
        hidden_(packed) {}

  // to[t] += the layer's output and then the memory's, for every token of x. `floats` is x as it was before it was
  // rounded, [tokens, d], which memory reads. `memory` may be empty.
  void operator()(const Layer& layer, const Inputs& x, const float* floats, std::span<const MemoryRows> memory,
                  float* to);

 private:
  // The hidden values, and at once the pieces of the memory.
  void expand(const Layer& layer, const Inputs& x, const float* floats, std::span<const MemoryRows> memory);

  void (*gate_)(float* gate, const float* up, std::size_t n);
  Products products_;
  Parallel& parallel_;
  Inputs hidden_;
  std::vector<float> added_;  // [tokens, d], by memory
  std::vector<float> scratch_;
};

}  // namespace edge::native
