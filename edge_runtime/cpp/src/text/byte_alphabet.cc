#include "text/byte_alphabet.h"

#include <array>

#include "text/utf8.h"

namespace edge::text {
namespace {

constexpr int kLast = 0x143;  // the highest character of the alphabet

// By character: its byte, or -1.
constexpr std::array<int, kLast + 1> make_bytes() {
  std::array<int, kLast + 1> bytes{};
  for (int& byte : bytes) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    bytes[static_cast<std::size_t>(printable ? byte : next++)] = byte;
  }
  return bytes;
}
constexpr auto kBytes = make_bytes();

}  // namespace

std::optional<std::string> bytes_of(std::string_view text) {
  std::string bytes;
  while (!text.empty()) {
    const auto [kind, size] = utf8_head(text);
    if (kind != Utf8::kWhole || size > 2) return std::nullopt;
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const std::size_t character = size == 1 ? at(0) : (at(0) & 0x1FU) << 6U | (at(1) & 0x3FU);
    if (character > kLast || kBytes[character] < 0) return std::nullopt;
    bytes += static_cast<char>(kBytes[character]);
    text.remove_prefix(size);
  }
  return bytes;
}

}  // namespace edge::text
