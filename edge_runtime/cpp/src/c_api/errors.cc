#include <array>

#include "c_api/handles.h"
#include "text/utf8.h"

namespace edge::c_api {

edge_status report(const Error& failed, edge_error* error) {
  const auto status = static_cast<edge_status>(failed.code);
  if (error == nullptr) return status;
  error->status = status;
  error->required_bytes = failed.required_bytes;
  const std::string_view message = failed.message;
  std::size_t size = 0;
  while (size < message.size()) {
    const std::size_t next = text::utf8_head(message.substr(size)).size;
    if (size + next >= sizeof error->message) break;
    size += next;
  }
  std::memcpy(error->message, message.data(), size);
  error->message[size] = '\0';
  return status;
}

}  // namespace edge::c_api

extern "C" {

uint32_t edge_api_version(void) { return EDGE_API_VERSION; }

const char* edge_version(void) { return EDGE_VERSION_TEXT; }

const char* edge_status_name(int32_t status) {
  static constexpr std::array kNames = {"ok",         "invalid_argument", "not_found",   "io",         "truncated",
                                        "bad_format", "unsupported",      "checksum",    "never_fits", "busy",
                                        "blocked",    "cancelled",        "stale_handle"};
  return status >= 0 && static_cast<std::size_t>(status) < kNames.size() ? kNames[static_cast<std::size_t>(status)]
                                                                         : "unknown";
}

}  // extern "C"
