#include <nanobind/nanobind.h>

#include "bindings.h"

NB_MODULE(_core, module) {
  module.doc() = "The C++ core of edge_runtime: formats, pager, router descent, the native engine, text.";
  edge::python::bind_format(module);
  edge::python::bind_native(module);
  edge::python::bind_pager(module);
  edge::python::bind_router(module);
  edge::python::bind_text(module);
}
