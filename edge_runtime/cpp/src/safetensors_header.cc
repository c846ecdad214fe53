#include "safetensors_header.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "strict_json.h"

namespace edge {
namespace {

using Json = nlohmann::json;

// Far above any real header (a level file's is one page), far below what would hurt a phone.
constexpr std::uint64_t kLargestHeader = 16U << 20U;
constexpr int kDeepestJson = 16;
constexpr std::size_t kMostDigits = 20;

// All that the safetensors format has: a file of a later version may use them, and then its version is what is wrong.
std::optional<std::uint64_t> element_bits(const std::string& dtype) {
  static const std::map<std::string, std::uint64_t> sizes = {
      {"F4", 4},      {"F6_E2M3", 6},     {"F6_E3M2", 6},     {"BOOL", 8}, {"U8", 8},   {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8},     {"F8_E8M0", 8},     {"U16", 16}, {"I16", 16}, {"F16", 16},
      {"BF16", 16},   {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"U32", 32}, {"I32", 32}, {"F32", 32},
      {"U64", 64},    {"I64", 64},        {"F64", 64},        {"C64", 64}};
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? std::nullopt : std::optional(found->second);
}

Result<std::uint64_t> unsigned_of(const Json& json, const std::string& where) {
  if (!json.is_number_unsigned()) {
    return fail(ErrorCode::kBadFormat, where + " is not a non-negative integer");
  }
  return json.get<std::uint64_t>();
}

Result<TensorEntry> parse_entry(const Json& json, const std::string& where) {
  if (!json.is_object() || !json.contains("dtype") || !json["dtype"].is_string() || !json.contains("shape") ||
      !json["shape"].is_array() || !json.contains("data_offsets") || !json["data_offsets"].is_array() ||
      json["data_offsets"].size() != 2) {
    return fail(ErrorCode::kBadFormat, where + " lacks dtype, shape or data_offsets");
  }
  TensorEntry entry;
  entry.dtype = json["dtype"].get<std::string>();
  const auto size = element_bits(entry.dtype);
  if (!size) {
    return fail(ErrorCode::kBadFormat, where + " has the unknown dtype " + printable(entry.dtype));
  }
  std::uint64_t bits = *size;
  for (const Json& dimension : json["shape"]) {
    const auto extent = unsigned_of(dimension, where + "'s shape");
    if (!extent) {
      return tl::make_unexpected(extent.error());
    }
    if (*extent != 0 && bits > std::numeric_limits<std::uint64_t>::max() / *extent) {
      return fail(ErrorCode::kBadFormat, where + "'s shape overflows");
    }
    bits *= *extent;
    entry.shape.push_back(*extent);
  }
  const auto begin = unsigned_of(json["data_offsets"][0], where + "'s data_offsets");
  const auto end = unsigned_of(json["data_offsets"][1], where + "'s data_offsets");
  if (!begin || !end || *begin > *end || bits % 8 != 0 || *end - *begin != bits / 8) {
    return fail(ErrorCode::kBadFormat, where + "'s data_offsets do not agree with its dtype and shape");
  }
  entry.begin = *begin;
  entry.end = *end;
  return entry;
}

Status check_tiling(const SafetensorsHeader& header, const std::string& path) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  ranges.reserve(header.tensors.size());
  for (const auto& [tensor, entry] : header.tensors) {
    ranges.emplace_back(entry.begin, entry.end);
  }
  std::sort(ranges.begin(), ranges.end());
  std::uint64_t position = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin != position) {
      return fail(ErrorCode::kBadFormat, path + ": its tensors overlap or leave a hole at data offset " +
                                             std::to_string(std::min(begin, position)));
    }
    position = end;
  }
  const std::uint64_t available = header.file_bytes - header.data_start;
  if (position > available) {
    return fail(ErrorCode::kTruncated, path + ": the header claims " + std::to_string(position) +
                                           " bytes of data, the file has " + std::to_string(available) +
                                           ": copy it again");
  }
  if (position < available) {
    return fail(ErrorCode::kBadFormat,
                path + ": " + std::to_string(available - position) + " bytes follow the last tensor");
  }
  return {};
}

Status parse_header(const std::string& text, const std::string& path, SafetensorsHeader& header) {
  const Json json = parse_strict(text, kDeepestJson);
  if (!json.is_object()) {
    return fail(ErrorCode::kBadFormat, path + ": its header is not a JSON object with distinct keys");
  }
  for (const auto& [key, value] : json.items()) {
    if (key == "__metadata__") {
      if (!value.is_object()) {
        return fail(ErrorCode::kBadFormat, path + ": __metadata__ is not a map of texts");
      }
      for (const auto& [name, text_value] : value.items()) {
        if (!text_value.is_string()) {
          return fail(ErrorCode::kBadFormat, path + ": metadata '" + printable(name) + "' is not a text");
        }
        header.metadata.emplace(name, text_value.get<std::string>());
      }
      continue;
    }
    auto entry = parse_entry(value, path + ": tensor '" + printable(key) + "'");
    if (!entry) {
      return tl::make_unexpected(entry.error());
    }
    header.tensors.emplace(key, std::move(*entry));
  }
  return {};
}

}  // namespace

Result<SafetensorsHeader> read_safetensors_header(const ByteSource& source) {
  const std::string& path = source.name();
  SafetensorsHeader header;
  header.file_bytes = source.size();
  if (header.file_bytes < 8) {
    return fail(ErrorCode::kTruncated,
                path + ": " + std::to_string(header.file_bytes) + " bytes are no safetensors file");
  }
  std::uint64_t length = 0;
  if (auto status = source.read(0, std::as_writable_bytes(std::span(&length, 1))); !status) {
    return tl::make_unexpected(status.error());
  }
  if (length > kLargestHeader) {
    return fail(ErrorCode::kBadFormat,
                path + ": not a safetensors file (its header would be " + std::to_string(length) + " bytes long)");
  }
  if (length > header.file_bytes - 8) {
    return fail(ErrorCode::kTruncated, path + ": ends inside its header: copy it again");
  }
  header.data_start = 8 + length;
  std::string text(length, '\0');
  if (auto status = source.read(8, std::as_writable_bytes(std::span(text))); !status) {
    return tl::make_unexpected(status.error());
  }
  if (auto status = parse_header(text, path, header); !status) {
    return tl::make_unexpected(status.error());
  }
  if (auto status = check_tiling(header, path); !status) {
    return tl::make_unexpected(status.error());
  }
  return header;
}

Result<std::string> metadata_text(const SafetensorsHeader& header, const std::string& path, const std::string& key) {
  const auto found = header.metadata.find(key);
  if (found == header.metadata.end()) {
    return fail(ErrorCode::kBadFormat, path + ": metadata '" + key + "' is missing");
  }
  return found->second;
}

Result<TensorEntry> find_tensor(const SafetensorsHeader& header, const std::string& path, const std::string& name,
                                const std::string& dtype, const std::vector<std::uint64_t>& shape) {
  const auto found = header.tensors.find(name);
  if (found == header.tensors.end() || found->second.dtype != dtype || found->second.shape != shape) {
    return fail(ErrorCode::kBadFormat, path + ": the tensor '" + name + "' is missing or has another dtype or shape");
  }
  return found->second;
}

Result<std::uint64_t> metadata_number(const SafetensorsHeader& header, const std::string& path, const std::string& key,
                                      std::uint64_t low, std::uint64_t high) {
  const auto text = metadata_text(header, path, key);
  if (!text) {
    return tl::make_unexpected(text.error());
  }
  std::uint64_t value = 0;
  const char* const end = text->data() + text->size();
  const auto parsed = std::from_chars(text->data(), end, value);
  if (text->size() > kMostDigits || parsed.ec != std::errc() || parsed.ptr != end || value < low || value > high) {
    return fail(ErrorCode::kBadFormat, path + ": metadata '" + key + "' is '" + printable(*text) +
                                           "', not a number from " + std::to_string(low) + " to " +
                                           std::to_string(high));
  }
  return value;
}

}  // namespace edge
