#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "strict_json.h"
#include "text/json_fields.h"

namespace edge::text {
namespace {

constexpr int kDeepest = 8;

Result<std::string> normal_form(const std::string& text, unsigned options) {
  // The options are flags, which the library's enum lists one by one.
  // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange)
  const auto flags = static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE);
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return text;
  utf8proc_uint8_t* raw = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 static_cast<utf8proc_ssize_t>(text.size()), &raw, flags);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owned(raw, std::free);
  if (size < 0) return fail(ErrorCode::kUnsupported, std::string("Unicode normalization: ") + utf8proc_errmsg(size));
  return std::string(reinterpret_cast<const char*>(raw), static_cast<std::size_t>(size));
}

}  // namespace

Result<Normalizer> Normalizer::parse(const nlohmann::json& json) {
  Normalizer normalizer;
  if (json.is_null()) return normalizer;
  if (auto added = normalizer.add(json, 0); !added) return tl::make_unexpected(added.error());
  return normalizer;
}

Status Normalizer::add(const nlohmann::json& json, int depth) {
  static constexpr std::pair<const char*, Kind> kForms[] = {
      {"NFC", Kind::kNfc}, {"NFD", Kind::kNfd}, {"NFKC", Kind::kNfkc}, {"NFKD", Kind::kNfkd}};
  const std::string type = text_of(json, "type");
  if (type == "Sequence" && depth < kDeepest) {
    for (const auto& part : list_of(json, "normalizers")) {
      if (auto added = add(part, depth + 1); !added) return added;
    }
    return {};
  }
  for (const auto& [name, kind] : kForms) {
    if (type != name) continue;
    steps_.push_back({kind, Pattern::literal({}), {}});
    return {};
  }
  if (type == "Prepend") {
    steps_.push_back({Kind::kPrepend, Pattern::literal({}), text_of(json, "prepend")});
    return {};
  }
  if (type == "Replace") {
    auto pattern = pattern_of(json, "pattern");
    if (!pattern) return tl::make_unexpected(pattern.error());
    steps_.push_back({Kind::kReplace, *pattern, text_of(json, "content")});
    return {};
  }
  return fail(ErrorCode::kUnsupported, "its normalizer is '" + printable(type) + "', which this build does not know");
}

Result<std::string> Normalizer::apply(std::string text) const {
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kNfc:
      case Kind::kNfd:
      case Kind::kNfkc:
      case Kind::kNfkd: {
        const bool compose = step.kind == Kind::kNfc || step.kind == Kind::kNfkc;
        const bool compatible = step.kind == Kind::kNfkc || step.kind == Kind::kNfkd;
        auto normal = normal_form(
            text, (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) | (compatible ? unsigned{UTF8PROC_COMPAT} : 0U));
        if (!normal) return normal;
        text = std::move(*normal);
        break;
      }
      case Kind::kPrepend:
        if (!text.empty()) text.insert(0, step.content);
        break;
      case Kind::kReplace: {
        const auto found = step.pattern.matches(text);
        if (!found) return tl::make_unexpected(found.error());
        std::string out;
        std::size_t from = 0;
        for (const Span& span : *found) {
          out.append(text, from, span.begin - from).append(step.content);
          from = span.end;
        }
        text = out.append(text, from);
        break;
      }
    }
  }
  return text;
}

}  // namespace edge::text
