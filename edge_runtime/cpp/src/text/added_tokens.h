// Tokens that a tokenizer file adds to its model's own: they are found in the text before anything else is done.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/result.h"
#include "text/normalizer.h"

namespace edge::text {

struct AddedToken {
  std::uint32_t id;
  std::string content;
  bool special;
  bool normalized;  // looked for in the normalized text, otherwise in the text as it is
};

// kBadFormat, kUnsupported: a token that takes in the spaces around it or stands for whole words only. The messages
// name no file.
Result<std::vector<AddedToken>> parse_added_tokens(const nlohmann::json& list);

// Finds tokens in a text, the longest of those that begin first. Immutable.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  // Of the tokens with this `normalized`, their contents normalized where it is set. kUnsupported as Normalizer::apply.
  static Result<AddedTokenFinder> of(const std::vector<AddedToken>& tokens, bool normalized,
                                     const Normalizer& normalizer);

  struct Found {
    std::size_t begin;
    std::size_t end;
    std::uint32_t id;
  };
  std::vector<Found> find(std::string_view text) const;

 private:
  struct Entry {
    std::string content;
    std::uint32_t id;
  };
  std::vector<Entry> by_first_[256];  // by the first byte, the longest first
};

}  // namespace edge::text
