// Shared by the files of the extension module.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>

#include "edge_runtime/result.h"

namespace edge::python {

void bind_format(nanobind::module_& module);
void bind_native(nanobind::module_& module);
void bind_pager(nanobind::module_& module);
void bind_router(nanobind::module_& module);
void bind_text(nanobind::module_& module);

// Raises the class of edge_runtime.errors that belongs to the error's code. REQUIRES the GIL.
[[noreturn]] void raise(const Error& error);

template <typename T>
T unwrap(Result<T>&& result) {
  if (!result) {
    raise(result.error());
  }
  return std::move(*result);
}

inline void unwrap(Status&& status) {
  if (!status) {
    raise(status.error());
  }
}

}  // namespace edge::python
