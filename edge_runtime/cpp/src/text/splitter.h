// The pre-tokenizers of tokenizer files: where a text is cut before its pieces are merged.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "edge_runtime/result.h"
#include "text/pattern.h"

namespace edge::text {

// Immutable; safe to share between threads.
class Splitter {
 public:
  // `json`: null, or one pre-tokenizer or a sequence of them. kBadFormat, kUnsupported; the messages name no file.
  static Result<Splitter> parse(const nlohmann::json& json);

  // The pieces are to be merged from bytes, not from characters.
  bool byte_level() const { return byte_level_; }

  // REQUIRES UTF-8. `at_start`: the text is the beginning of what is encoded. kUnsupported as Pattern::matches.
  Result<std::vector<std::string>> apply(std::string text, bool at_start) const;

 private:
  // What becomes of a match: a piece of its own, nothing, the end of the piece before or the beginning of the next, or
  // one piece with the matches beside it.
  enum class Behaviour : unsigned char { kIsolated, kRemoved, kWithPrevious, kWithNext, kContiguous };
  struct Step {
    Pattern pattern;
    Behaviour behaviour = Behaviour::kIsolated;
    bool invert = false;  // cut at what the pattern does not match
    bool cuts = true;
    // Metaspace: spaces become this; and it, or a plain space, is put before a piece that does not begin with it.
    std::string space = {};
    enum class Prefix : unsigned char { kNever, kFirst, kAlways } prefix = Prefix::kNever;
  };

  Status add(const nlohmann::json& json, int depth);
  Status add_split(const nlohmann::json& json);
  Status add_metaspace(const nlohmann::json& json);
  static Status cut(const Step& step, const std::string& piece, std::vector<std::string>& out);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace edge::text
