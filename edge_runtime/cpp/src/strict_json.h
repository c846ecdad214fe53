// JSON out of files that may be hostile: one text must mean the same to every reader, and errors that quote it stay one
// readable line.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace edge {

// The parsed text; discarded where it is not UTF-8 JSON, nested deeper than `deepest`, or where readers differ: a key
// twice in one object (some keep the first, some the last), a NUL, a byte order mark.
nlohmann::json parse_strict(std::string_view text, int deepest);

// The text for an error message: what is not printable ASCII replaced, cut after 64 characters.
std::string printable(std::string_view text);

}  // namespace edge
