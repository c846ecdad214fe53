#include "text/splitter.h"

#include <utility>

#include "strict_json.h"
#include "text/json_fields.h"

namespace edge::text {
namespace {

constexpr int kDeepest = 8;
// GPT-2's, which the byte-level step brings along.
constexpr const char* kByteLevel = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string with(const std::string& text, const std::string& from, const std::string& to) {
  std::string out;
  std::size_t at = 0;
  for (std::size_t found = 0; (found = text.find(from, at)) != std::string::npos; at = found + from.size()) {
    out.append(text, at, found - at).append(to);
  }
  return out.append(text, at);
}

}  // namespace

Result<Splitter> Splitter::parse(const nlohmann::json& json) {
  Splitter splitter;
  if (json.is_null()) return splitter;
  if (auto added = splitter.add(json, 0); !added) return tl::make_unexpected(added.error());
  return splitter;
}

Status Splitter::add(const nlohmann::json& json, int depth) {
  const std::string type = text_of(json, "type");
  if (byte_level_) {
    return fail(ErrorCode::kUnsupported, "its pre-tokenizer goes on behind the byte-level step");
  }
  if (type == "Sequence" && depth < kDeepest) {
    for (const auto& part : list_of(json, "pretokenizers")) {
      if (auto added = add(part, depth + 1); !added) return added;
    }
    return {};
  }
  if (type == "ByteLevel") {
    byte_level_ = true;
    Step step{.pattern = Pattern::literal({}), .cuts = flag_of(json, "use_regex", true)};
    if (flag_of(json, "add_prefix_space", true)) {
      step.space = " ";
      step.prefix = Step::Prefix::kAlways;
    }
    if (step.cuts) {
      auto pattern = Pattern::compile(kByteLevel);
      if (!pattern) return tl::make_unexpected(pattern.error());
      step.pattern = *pattern;
    }
    steps_.push_back(std::move(step));
    return {};
  }
  if (type == "Digits") {
    const bool each = flag_of(json, "individual_digits", false);
    auto pattern = Pattern::compile(R"(\p{N})");
    if (!pattern) return tl::make_unexpected(pattern.error());
    steps_.push_back({.pattern = *pattern, .behaviour = each ? Behaviour::kIsolated : Behaviour::kContiguous});
    return {};
  }
  if (type == "Split") return add_split(json);
  if (type == "Metaspace") return add_metaspace(json);
  return fail(ErrorCode::kUnsupported,
              "its pre-tokenizer is '" + printable(type) + "', which this build does not know");
}

Status Splitter::add_split(const nlohmann::json& json) {
  static constexpr std::pair<const char*, Behaviour> kBehaviours[] = {{"Isolated", Behaviour::kIsolated},
                                                                      {"Removed", Behaviour::kRemoved},
                                                                      {"MergedWithPrevious", Behaviour::kWithPrevious},
                                                                      {"MergedWithNext", Behaviour::kWithNext},
                                                                      {"Contiguous", Behaviour::kContiguous}};
  auto pattern = pattern_of(json, "pattern");
  if (!pattern) return tl::make_unexpected(pattern.error());
  const std::string name = text_of(json, "behavior");
  for (const auto& [known, behaviour] : kBehaviours) {
    if (name != known) continue;
    steps_.push_back({.pattern = *pattern, .behaviour = behaviour, .invert = flag_of(json, "invert", false)});
    return {};
  }
  return fail(ErrorCode::kBadFormat, "its pre-tokenizer splits in the unknown way '" + printable(name) + "'");
}

Status Splitter::add_metaspace(const nlohmann::json& json) {
  const std::string space = text_of(json, "replacement");
  const std::string scheme = json.contains("prepend_scheme")           ? text_of(json, "prepend_scheme")
                             : flag_of(json, "add_prefix_space", true) ? "always"
                                                                       : "never";
  if (space.empty() || (scheme != "always" && scheme != "never" && scheme != "first")) {
    return fail(ErrorCode::kBadFormat, "its Metaspace has no replacement or an unknown prepend_scheme");
  }
  Step step{
      .pattern = Pattern::literal(space), .behaviour = Behaviour::kWithNext, .cuts = flag_of(json, "split", true)};
  step.space = space;
  if (scheme != "never") step.prefix = scheme == "first" ? Step::Prefix::kFirst : Step::Prefix::kAlways;
  steps_.push_back(std::move(step));
  return {};
}

Result<std::vector<std::string>> Splitter::apply(std::string text, bool at_start) const {
  std::vector<std::string> pieces;
  pieces.push_back(std::move(text));
  for (const Step& step : steps_) {
    std::vector<std::string> next;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      std::string piece = std::move(pieces[i]);
      if (!step.space.empty()) {
        if (step.space != " ") piece = with(piece, " ", step.space);
        const bool wanted =
            step.prefix == Step::Prefix::kAlways || (step.prefix == Step::Prefix::kFirst && at_start && i == 0);
        if (wanted && !piece.starts_with(step.space)) piece.insert(0, step.space);
      }
      if (!step.cuts) {
        next.push_back(std::move(piece));
      } else if (auto done = cut(step, piece, next); !done) {
        return tl::make_unexpected(done.error());
      }
    }
    pieces = std::move(next);
  }
  return pieces;
}

Status Splitter::cut(const Step& step, const std::string& piece, std::vector<std::string>& out) {
  const auto found = step.pattern.matches(piece);
  if (!found) return tl::make_unexpected(found.error());
  struct Part {
    Span span;
    bool match;
  };
  std::vector<Part> parts;
  std::size_t from = 0;
  for (const Span& span : *found) {
    if (span.begin > from) parts.push_back({{from, span.begin}, step.invert});
    parts.push_back({span, !step.invert});
    from = span.end;
  }
  if (from < piece.size()) parts.push_back({{from, piece.size()}, step.invert});
  std::vector<Span> spans;
  bool before = false;  // the part before was a match
  for (const Part& part : parts) {
    const bool joins = !spans.empty() && ((step.behaviour == Behaviour::kWithPrevious && part.match && !before) ||
                                          (step.behaviour == Behaviour::kWithNext && !part.match && before) ||
                                          (step.behaviour == Behaviour::kContiguous && part.match == before));
    if (joins) {
      spans.back().end = part.span.end;
    } else if (step.behaviour != Behaviour::kRemoved || !part.match) {
      spans.push_back(part.span);
    }
    before = part.match;
  }
  for (const Span& span : spans) out.push_back(piece.substr(span.begin, span.end - span.begin));
  return {};
}

}  // namespace edge::text
