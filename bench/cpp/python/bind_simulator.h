// The simulator's part of the extension module.
#pragma once

#include <nanobind/nanobind.h>

namespace edge::bench {

void bind_simulator(nanobind::module_& module);

}  // namespace edge::bench
