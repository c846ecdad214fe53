#include "bindings.h"

namespace edge::python {

void bind_pager(nanobind::module_& /*module*/) {}

}  // namespace edge::python
