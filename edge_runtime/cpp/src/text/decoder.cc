#include "text/decoder.h"

#include "strict_json.h"
#include "text/json_fields.h"

namespace edge::text {
namespace {

// Whatever kind of value stands there.
bool is_number(const nlohmann::json& object, const char* key, int number) {
  const auto found = object.find(key);
  return found != object.end() && *found == number;
}

Status add(const nlohmann::json& step, Decoder& decoder) {
  const std::string type = text_of(step, "type");
  if (type == "ByteLevel") {
    decoder.byte_level = true;
  } else if (type == "ByteFallback") {
    decoder.byte_fallback = true;
  } else if (type == "Metaspace") {
    decoder.space = text_of(step, "replacement");
    decoder.strips = step.contains("prepend_scheme") ? text_of(step, "prepend_scheme") != "never"
                                                     : flag_of(step, "add_prefix_space", true);
  } else if (type == "Replace" && step.contains("pattern") && text_of(step, "content") == " " &&
             !text_of(step["pattern"], "String").empty()) {
    decoder.space = text_of(step["pattern"], "String");
  } else if (type == "Strip" && text_of(step, "content") == " " && is_number(step, "start", 1) &&
             is_number(step, "stop", 0)) {
    decoder.strips = true;
  } else if (type != "Fuse") {
    return fail(ErrorCode::kUnsupported,
                "its decoder has the step '" + printable(type) + "', which this build does not know so");
  }
  return {};
}

}  // namespace

Result<Decoder> Decoder::parse(const nlohmann::json& json) {
  Decoder decoder;
  const bool sequence = text_of(json, "type") == "Sequence";
  const nlohmann::json one = nlohmann::json::array({json});
  for (const auto& step : sequence ? list_of(json, "decoders") : one) {
    if (auto added = add(step, decoder); !added) return tl::make_unexpected(added.error());
  }
  if (decoder.byte_level && (decoder.byte_fallback || !decoder.space.empty())) {
    return fail(ErrorCode::kUnsupported, "its decoder joins byte-level with other steps");
  }
  return decoder;
}

}  // namespace edge::text
