#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>  // the message

#include "bindings.h"

namespace nb = nanobind;

namespace edge::python {

void raise(const Error& error) {
  const nb::object classes = nb::module_::import_("edge_runtime.errors").attr("BY_CODE");
  const nb::object type = classes[static_cast<int>(error.code) - 1];
  const nb::object exception = type(error.message, error.required_bytes);
  PyErr_SetObject(type.ptr(), exception.ptr());
  throw nb::python_error();
}

}  // namespace edge::python
