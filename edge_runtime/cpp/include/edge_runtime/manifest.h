// manifest.json (docs/bundle-format.md): validation, and the one way to change it.
#pragma once

#include <string>
#include <string_view>

#include "edge_runtime/result.h"

namespace edge {

// The newest schema that this build reads and the only one that it writes.
inline constexpr int kManifestSchema = 1;

// Checks the text against docs/bundle-format.md: required keys, their types and ranges, safe relative paths, and that
// every path that is used is listed in `files`. kBadFormat names the key; kUnsupported: a newer schema.
Status validate_manifest(std::string_view text);

// Validates `text`, then makes it directory/manifest.json by writing a temporary file, flushing it, renaming it over
// the old one and flushing the directory: after a crash the old or the new manifest is there. kBadFormat, kUnsupported,
// kIo.
Status commit_manifest(const std::string& directory, std::string_view text);

// Any other small file of a bundle, written as safely as the manifest. kIo.
Status write_file(const std::string& path, std::string_view text);

// A relative path without "..", ".", empty parts, backslashes, NUL or a leading slash.
bool is_safe_path(std::string_view path);

}  // namespace edge
