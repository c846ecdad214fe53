// The normalizers of tokenizer files.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "edge_runtime/result.h"
#include "text/pattern.h"

namespace edge::text {

// Immutable; safe to share between threads.
class Normalizer {
 public:
  // `json`: null, or one normalizer or a sequence of them. kBadFormat, kUnsupported; the messages name no file.
  static Result<Normalizer> parse(const nlohmann::json& json);

  // REQUIRES UTF-8. kUnsupported as Pattern::matches.
  Result<std::string> apply(std::string text) const;

 private:
  enum class Kind : unsigned char { kNfc, kNfd, kNfkc, kNfkd, kPrepend, kReplace };
  struct Step {
    Kind kind;
    Pattern pattern;
    std::string content;
  };

  Status add(const nlohmann::json& json, int depth);

  std::vector<Step> steps_;
};

}  // namespace edge::text
