// UTF-8, a character at a time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace edge::text {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8 : unsigned char { kWhole, kCut, kBad };

// What the text begins with. kWhole: a character of `size` bytes. kCut: the text ends inside one. kBad: `size` bytes
// that begin no character, the longest run that Unicode counts as one error. REQUIRES text that is not empty.
struct Utf8Head {
  Utf8 kind;
  std::size_t size;
};
Utf8Head utf8_head(std::string_view text);

bool is_utf8(std::string_view text);

// The text with U+FFFD for each run of bytes that is not UTF-8.
std::string readable(std::string_view text);

}  // namespace edge::text
