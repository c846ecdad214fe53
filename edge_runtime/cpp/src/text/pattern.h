// The regular expressions of tokenizer files.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/result.h"

namespace edge::text {

struct Span {
  std::size_t begin;
  std::size_t end;
};

// A compiled expression, with Unicode's meaning of classes. Immutable; safe to share between threads.
class Pattern {
 public:
  // kBadFormat: the message says what is wrong with the expression and names no file.
  static Result<Pattern> compile(const std::string& expression);
  static Pattern literal(std::string text);  // matches exactly this text

  // All matches that are not empty, from the left, none overlapping. REQUIRES UTF-8. kUnsupported: the expression needs
  // more steps than any that tokenizers use.
  Result<std::vector<Span>> matches(std::string_view text) const;

 private:
  struct Code;
  explicit Pattern(std::string text, std::shared_ptr<const Code> code)
      : literal_(std::move(text)), code_(std::move(code)) {}

  std::string literal_;
  std::shared_ptr<const Code> code_;  // null for a literal
};

}  // namespace edge::text
