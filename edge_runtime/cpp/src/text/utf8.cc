#include "text/utf8.h"

#include <algorithm>

namespace edge::text {

Utf8Head utf8_head(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {Utf8::kWhole, 1};
  std::size_t size = 0;
  if (first >= 0xC2 && first <= 0xDF) size = 2;
  if (first >= 0xE0 && first <= 0xEF) size = 3;
  if (first >= 0xF0 && first <= 0xF4) size = 4;
  if (size == 0) return {Utf8::kBad, 1};
  // The second byte's range keeps out longer forms than needed, surrogates and what lies beyond U+10FFFF.
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < size; ++i) {
    if (i == text.size()) return {Utf8::kCut, i};
    if (byte(i) < low || byte(i) > high) return {Utf8::kBad, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8::kWhole, size};
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const auto [kind, size] = utf8_head(text);
    if (kind != Utf8::kWhole) return false;
    text.remove_prefix(size);
  }
  return true;
}

std::string readable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto [kind, size] = utf8_head(text);
    out += kind == Utf8::kWhole ? text.substr(0, size) : kReplacement;
    text.remove_prefix(size);
  }
  return out;
}

}  // namespace edge::text
