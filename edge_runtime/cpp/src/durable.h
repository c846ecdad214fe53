// Files that appear whole or not at all.
#pragma once

#include <string>

#include "edge_runtime/result.h"

namespace edge {

// Flushes `from` to the device, renames it to `to`, and flushes the directory, so that after a power cut either the old
// or the new file is there. REQUIRES both in one directory. kIo.
Status replace_durably(const std::string& from, const std::string& to);

}  // namespace edge
