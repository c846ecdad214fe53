// edge::memory_ffn.out: the operator that a paged program calls in each layer that carries memory.
//   y = sum over the leased blocks of W3^T ( silu(W1 x) * (W2 x) )   Pouransari et al. 2025, section 2, appendix I
#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/kernel_includes.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "edge_runtime/lease_registry.h"
#include "edge_runtime/memory_ffn.h"
#include "failure.h"
#include "thread_pool.h"

namespace edge::et {
namespace {

using ::executorch::aten::ScalarType;
using ::executorch::aten::Tensor;
using ::executorch::runtime::KernelRuntimeContext;
using RuntimeError = ::executorch::runtime::Error;

// Reused from call to call: a decode step allocates nothing here once it has grown.
struct Workspace {
  std::vector<MemoryRows> rows;
  std::vector<float> scratch;
};

Status run(const Tensor& x, std::int64_t handle, std::int64_t layer, Tensor& out) {
  const auto d = static_cast<std::size_t>(x.size(x.dim() - 1));
  const std::size_t tokens = static_cast<std::size_t>(x.numel()) / d;
  auto* y = out.mutable_data_ptr<float>();
  if (handle == 0) {
    std::fill_n(y, tokens * d, 0.0F);
    return {};
  }
  const auto source = find_source(handle);
  if (!source) {
    return tl::make_unexpected(source.error());
  }
  MemorySource& memory = **source;
  if (layer < 0 || layer >= memory.layers() || d != memory.d_model()) {
    return fail(ErrorCode::kInvalidArgument, "the program reads memory layer " + std::to_string(layer) + " at width " +
                                                 std::to_string(d) + ", but the lease has " +
                                                 std::to_string(memory.layers()) + " layers of width " +
                                                 std::to_string(memory.d_model()) + ": use the bank of this program");
  }
  thread_local Workspace workspace;
  if (auto status = memory.layer(static_cast<std::uint32_t>(layer), workspace.rows); !status) {
    return status;
  }
  const std::size_t needed = memory_ffn_scratch(workspace.rows, tokens, d);
  if (workspace.scratch.size() < needed) {
    workspace.scratch.resize(needed);
  }
  memory_ffn(workspace.rows, x.const_data_ptr<float>(), tokens, d, y, workspace.scratch, engine_threads());
  return {};
}

Tensor& memory_ffn_out(KernelRuntimeContext& context, const Tensor& x, const Tensor& memory, std::int64_t layer,
                       Tensor& out) {
  if (x.scalar_type() != ScalarType::Float || out.scalar_type() != ScalarType::Float || x.dim() < 1 ||
      x.size(x.dim() - 1) == 0 || memory.scalar_type() != ScalarType::Long || memory.numel() != 1) {
    keep_operator_error({ErrorCode::kInvalidArgument,
                         "edge::memory_ffn takes x f32 [.., d] and memory i64 [1]: export the program again", 0});
    context.fail(RuntimeError::InvalidArgument);
    return out;
  }
  if (const auto error = ::executorch::runtime::resize_tensor(out, x.sizes()); error != RuntimeError::Ok) {
    context.fail(error);
    return out;
  }
  if (const auto status = run(x, memory.const_data_ptr<std::int64_t>()[0], layer, out); !status) {
    keep_operator_error(status.error());
    context.fail(RuntimeError::Internal);
  }
  return out;
}

EXECUTORCH_LIBRARY(edge, "memory_ffn.out", memory_ffn_out);

}  // namespace
}  // namespace edge::et
