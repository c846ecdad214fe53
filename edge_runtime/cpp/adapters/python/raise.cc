#include <nanobind/nanobind.h>

#include "bindings.h"

namespace nb = nanobind;

namespace edge::python {

void raise(const Error& error) {
  const nb::object classes = nb::module_::import_("edge_runtime.errors").attr("BY_CODE");
  const nb::object type = classes[static_cast<int>(error.code) - 1];
  // A message may quote a damaged file: bytes that are not UTF-8 are replaced, not another error.
  const nb::object message =
      nb::steal(PyUnicode_DecodeUTF8(error.message.data(), static_cast<Py_ssize_t>(error.message.size()), "replace"));
  const nb::object exception = type(message, error.required_bytes);
  PyErr_SetObject(type.ptr(), exception.ptr());
  throw nb::python_error();
}

}  // namespace edge::python
