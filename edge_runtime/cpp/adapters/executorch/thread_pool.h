// ExecuTorch's process-wide thread pool, on which XNNPACK runs too.
#pragma once

#include "edge_runtime/parallel.h"

namespace edge::et {

// For operators, while a Method executes. Calls from several threads run one after another.
Parallel& engine_threads();

// Counts who holds on to the pool: it can be resized only while nobody does.
class ThreadPoolUse {
 public:
  ThreadPoolUse();
  ~ThreadPoolUse();
  ThreadPoolUse(const ThreadPoolUse&) = delete;
  ThreadPoolUse& operator=(const ThreadPoolUse&) = delete;
};

}  // namespace edge::et
