#include "safetensors_input.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace edge::fuzz {
namespace {

using Json = nlohmann::json;

constexpr unsigned kDerive = 1;
constexpr unsigned kPad = 2;
constexpr const char* kName = "input.safetensors";

// Readers size their tables by the file: a file that claims gigabytes would be a test of the machine's memory. What the
// header claims beyond this is left away, as in a file that is cut short.
constexpr std::uint64_t kMostData = 4U << 20U;

enum class Size : std::uint8_t { kAsClaimed, kOneShort, kOneLong, kInsideHeader };

std::uint64_t unsigned_at(const Json& header, const char* pointer_text) {
  const Json::json_pointer pointer(pointer_text);
  const bool there = header.is_object() && header.contains(pointer) && header[pointer].is_number_unsigned();
  return there ? header[pointer].get<std::uint64_t>() : 0;
}

std::uint64_t claimed_bytes(const Json& header, const char* hole) {
  std::uint64_t end = 0;
  if (header.is_object()) {
    for (const auto& [name, entry] : header.items()) {
      end = std::max(end, unsigned_at(entry, "/data_offsets/1"));
    }
  }
  std::uint64_t most = kMostData;
  if (hole != nullptr && header.is_object() && header.contains(hole)) {
    most += std::min(unsigned_at(header[hole], "/data_offsets/1"), std::uint64_t{1} << 62U);
  }
  return std::min(end, most);
}

}  // namespace

SafetensorsInput::SafetensorsInput(std::string head, std::uint64_t size, std::string data, std::uint64_t data_at,
                                   std::uint8_t filler)
    : ByteSource(kName, size), head_(std::move(head)), data_(std::move(data)), data_at_(data_at), filler_(filler) {}

SafetensorsInput SafetensorsInput::of(Input input, const Layout& layout) {
  const unsigned flags = input.empty() ? 0 : input[0];
  const Range range = json_range(input);
  const auto* const bytes = reinterpret_cast<const char*>(input.data());
  std::string text(bytes + range.begin, range.end - range.begin);
  const std::size_t rest = std::min(range.end + 1, input.size());
  std::string data(bytes + rest, input.size() - rest);

  Json header = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if ((flags & kDerive) != 0 && header.is_object()) {
    layout.derive(header);
    text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  if ((flags & kPad) != 0) {
    text.append((layout.alignment - (8 + text.size()) % layout.alignment) % layout.alignment, ' ');
  }
  std::uint64_t length = text.size();
  const std::uint64_t data_start = 8 + length;
  std::uint64_t size = data_start + claimed_bytes(header, layout.hole);
  const std::uint64_t data_at = layout.anchor == Anchor::kEnd
                                    ? std::max(size - std::min<std::uint64_t>(size, data.size()), data_start)
                                    : data_start;
  switch (static_cast<Size>(flags >> 2U & 3U)) {
    case Size::kAsClaimed:
      break;
    case Size::kOneShort:
      --size;
      break;
    case Size::kOneLong:
      ++size;
      break;
    case Size::kInsideHeader:
      length += flags >> 4U;  // the header's own length lies, a little
      size = data_start;
      break;
  }
  std::string head(sizeof(length), '\0');
  std::memcpy(head.data(), &length, sizeof(length));
  return {head + text, size, std::move(data), data_at, layout.filler};
}

Status SafetensorsInput::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (out.size() > size() || offset > size() - out.size()) {
    return fail(ErrorCode::kTruncated, name() + ": ends before byte " + std::to_string(offset + out.size()));
  }
  std::fill(out.begin(), out.end(), static_cast<std::byte>(filler_));
  for (const auto& [part, part_at] : {std::pair(&data_, data_at_), std::pair(&head_, std::uint64_t{0})}) {
    const std::uint64_t begin = std::max(offset, part_at);
    const std::uint64_t end = std::min(offset + out.size(), part_at + part->size());
    if (begin < end) {
      std::memcpy(out.data() + (begin - offset), part->data() + (begin - part_at), end - begin);
    }
  }
  return {};
}

Range json_range(Input input) {
  const std::size_t begin = std::min<std::size_t>(1, input.size());
  const Input text = input.subspan(begin);
  return {begin, begin + static_cast<std::size_t>(std::find(text.begin(), text.end(), 0) - text.begin())};
}

}  // namespace edge::fuzz
