#include "strict_json.h"

#include <functional>
#include <set>
#include <utility>
#include <vector>

namespace edge {
namespace {

using Json = nlohmann::json;

struct Guard {
  int deepest;
  std::vector<std::set<std::string>> open = {};  // the keys of each object that is being read
  bool bad = false;

  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    bad = bad || depth > deepest;
    if (event == Json::parse_event_t::object_start) {
      open.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      open.pop_back();
    } else if (event == Json::parse_event_t::key && !open.back().insert(parsed.get<std::string>()).second) {
      bad = true;
    }
    return !bad;  // the rest of the value is not kept
  }
};

}  // namespace

Json parse_strict(std::string_view text, int deepest) {
  if (text.find('\0') != std::string_view::npos || text.starts_with("\xEF\xBB\xBF")) {
    return Json(Json::value_t::discarded);
  }
  Guard guard{deepest};
  Json json = Json::parse(text, std::ref(guard), /*allow_exceptions=*/false);
  if (guard.bad) {
    json = Json(Json::value_t::discarded);
  }
  return json;
}

std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 64;
  std::string shown;
  for (const char c : text.substr(0, kLongest)) {
    shown += c >= ' ' && c <= '~' ? c : '?';
  }
  return text.size() > kLongest ? shown + "..." : shown;
}

}  // namespace edge
