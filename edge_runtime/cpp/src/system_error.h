// What the operating system said, as an Error.
#pragma once

#include <string>

#include "edge_runtime/result.h"

namespace edge {

// "path: what: the system's text for errno". kNotFound for ENOENT, else kIo.
tl::unexpected<Error> system_error(const std::string& path, const std::string& what, int error);

}  // namespace edge
