// Why a call into ExecuTorch failed. Its own error is a number; the reason is in the core's Error that an operator met,
// or in the first line that the runtime logged. Both are kept per thread: kernels run on the thread that executes.
#pragma once

#include <executorch/runtime/core/error.h>

#include <optional>
#include <string>

#include "edge_runtime/result.h"

namespace edge::et {

// Sends ExecuTorch's log here instead of stderr while a FailureScope lives. Called once, when the module is loaded.
void install_log_capture();

// For operators: keeps the first error of the running call for the scope around it.
void keep_operator_error(Error error);

// Around one call into the runtime, on one thread; not nested.
class FailureScope {
 public:
  FailureScope();
  ~FailureScope();
  FailureScope(const FailureScope&) = delete;
  FailureScope& operator=(const FailureScope&) = delete;

  // The operator's own Error where one failed, else `code` with `what`, the runtime's error and its first log line.
  tl::unexpected<Error> error(ErrorCode code, const std::string& what, ::executorch::runtime::Error status) const;
};

}  // namespace edge::et
