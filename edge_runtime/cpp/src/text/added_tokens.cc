#include "text/added_tokens.h"

#include <algorithm>

#include "strict_json.h"
#include "text/json_fields.h"

namespace edge::text {

Result<std::vector<AddedToken>> parse_added_tokens(const nlohmann::json& list) {
  std::vector<AddedToken> tokens;
  for (const auto& entry : list) {
    const std::string content = text_of(entry, "content");
    if (content.empty() || !entry.contains("id") || !entry["id"].is_number_unsigned() ||
        entry["id"].get<std::uint64_t>() >= (1U << 24U)) {
      return fail(ErrorCode::kBadFormat, "an added token has no content or no id");
    }
    if (flag_of(entry, "single_word", false) || flag_of(entry, "lstrip", false) || flag_of(entry, "rstrip", false)) {
      return fail(ErrorCode::kUnsupported, "the added token '" + printable(content) +
                                               "' has single_word, lstrip or rstrip, which this build does not know");
    }
    const bool special = flag_of(entry, "special", false);
    tokens.push_back({entry["id"].get<std::uint32_t>(), content, special, flag_of(entry, "normalized", !special)});
  }
  return tokens;
}

Result<AddedTokenFinder> AddedTokenFinder::of(const std::vector<AddedToken>& tokens, bool normalized,
                                              const Normalizer& normalizer) {
  AddedTokenFinder finder;
  for (const AddedToken& token : tokens) {
    if (token.normalized != normalized) continue;
    std::string content = token.content;
    if (normalized) {
      auto normal = normalizer.apply(std::move(content));
      if (!normal) return tl::make_unexpected(normal.error());
      content = std::move(*normal);
    }
    if (content.empty()) continue;
    finder.by_first_[static_cast<unsigned char>(content.front())].push_back({std::move(content), token.id});
  }
  for (auto& entries : finder.by_first_) {
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& a, const Entry& b) { return a.content.size() > b.content.size(); });
  }
  return finder;
}

std::vector<AddedTokenFinder::Found> AddedTokenFinder::find(std::string_view text) const {
  std::vector<Found> found;
  for (std::size_t at = 0; at < text.size();) {
    const auto& entries = by_first_[static_cast<unsigned char>(text[at])];
    const auto hit = std::find_if(entries.begin(), entries.end(),
                                  [&](const Entry& entry) { return text.substr(at).starts_with(entry.content); });
    if (hit == entries.end()) {
      ++at;
      continue;
    }
    found.push_back({at, at + hit->content.size(), hit->id});
    at += hit->content.size();
  }
  return found;
}

}  // namespace edge::text
