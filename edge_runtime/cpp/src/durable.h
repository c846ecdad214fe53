// Files that appear whole or not at all.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "edge_runtime/result.h"

namespace edge {

// Flushes `from` to the device, renames it to `to`, and flushes the directory, so that after a power cut either the old
// or the new file is there. On failure `from` is removed. REQUIRES both in one directory. kIo.
Status replace_durably(const std::string& from, const std::string& to);

// Writes the parts, one after another, to `path` + ".partial" and gives it its name as replace_durably does. kIo; then
// the old file, if any, is as it was.
Status write_durably(const std::string& path, std::span<const std::string_view> parts);

}  // namespace edge
