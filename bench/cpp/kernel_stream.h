// memory_ffn over leased paths, layer after layer, with as many threads as an engine has and no engine around it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "edge_runtime/result.h"

namespace edge::bench {

// Seconds of each of `rounds` passes of one token over all layers of all leases, which have arrived and have one shape.
// kInvalidArgument: a lease is gone, or there is none.
Result<std::vector<double>> kernel_passes(std::span<const std::int64_t> handles, unsigned threads, unsigned rounds);

}  // namespace edge::bench
