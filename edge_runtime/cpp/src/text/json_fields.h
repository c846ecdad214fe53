// Members of JSON objects that may be of any kind.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "edge_runtime/result.h"
#include "text/pattern.h"

namespace edge::text {

inline std::string text_of(const nlohmann::json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// A list; empty where there is none.
inline const nlohmann::json& list_of(const nlohmann::json& object, const char* key) {
  static const nlohmann::json empty = nlohmann::json::array();
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_array() ? *found : empty;
}

inline bool flag_of(const nlohmann::json& object, const char* key, bool otherwise) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_boolean() ? found->get<bool>() : otherwise;
}

// {"String": text} or {"Regex": expression}.
inline Result<Pattern> pattern_of(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_object()) {
    if (found->contains("Regex")) return Pattern::compile(text_of(*found, "Regex"));
    if (const std::string literal = text_of(*found, "String"); !literal.empty()) return Pattern::literal(literal);
  }
  return fail(ErrorCode::kBadFormat, "a step has no pattern");
}

}  // namespace edge::text
