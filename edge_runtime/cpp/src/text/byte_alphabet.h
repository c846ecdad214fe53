// The alphabet of byte-level tokenizers: a printable character for each byte, the byte's own where it is printable in
// Latin-1, else one from U+0100 on.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace edge::text {

// The bytes that a text of this alphabet spells; nullopt where it has a character that the alphabet lacks.
std::optional<std::string> bytes_of(std::string_view text);

}  // namespace edge::text
