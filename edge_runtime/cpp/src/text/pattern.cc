#include "text/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cstdint>

namespace edge::text {
namespace {

// Steps of one match: those of tokenizers take a few a character. A hostile one ends here, within milliseconds.
constexpr std::uint32_t kMostSteps = 1'000'000;
constexpr std::uint32_t kMostHeapKib = 16'384;
constexpr std::size_t kLongestExpression = 4096;

PCRE2_SPTR bytes(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

struct Pattern::Code {
  explicit Code(pcre2_code* compiled) : code(compiled), limits(pcre2_match_context_create(nullptr)) {
    if (limits == nullptr) return;
    pcre2_set_match_limit(limits, kMostSteps);
    pcre2_set_depth_limit(limits, kMostSteps);
    pcre2_set_heap_limit(limits, kMostHeapKib);
  }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() {
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
  }

  pcre2_code* code;
  pcre2_match_context* limits;
};

Result<Pattern> Pattern::compile(const std::string& expression) {
  if (expression.size() > kLongestExpression) {
    return fail(ErrorCode::kBadFormat, "an expression of more than 4,096 bytes");
  }
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* const code =
      pcre2_compile(bytes(expression), expression.size(), PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
  if (code == nullptr) {
    std::array<PCRE2_UCHAR, 128> text{};
    pcre2_get_error_message(error, text.data(), text.size());
    return fail(ErrorCode::kBadFormat, "its expression fails at character " + std::to_string(at) + ": " +
                                           reinterpret_cast<const char*>(text.data()));
  }
  auto owned = std::make_shared<const Code>(code);
  if (owned->limits == nullptr) return fail(ErrorCode::kIo, "no memory for an expression");
  return Pattern({}, std::move(owned));
}

Pattern Pattern::literal(std::string text) { return Pattern(std::move(text), nullptr); }

Result<std::vector<Span>> Pattern::matches(std::string_view text) const {
  std::vector<Span> found;
  if (code_ == nullptr) {
    for (std::size_t at = 0; !literal_.empty() && (at = text.find(literal_, at)) != std::string_view::npos;) {
      found.push_back({at, at + literal_.size()});
      at += literal_.size();
    }
    return found;
  }
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr), pcre2_match_data_free);
  if (data == nullptr) return fail(ErrorCode::kIo, "no memory for an expression");
  const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(data.get());
  std::size_t from = 0;
  while (from < text.size()) {
    const int count = pcre2_match(code_->code, bytes(text), text.size(), from, PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK,
                                  data.get(), code_->limits);
    if (count == PCRE2_ERROR_NOMATCH) break;
    // \K can put a match's beginning behind its end or before where the search began.
    if (count < 0 || ends[0] < from || ends[0] >= ends[1]) {
      return fail(ErrorCode::kUnsupported, "the tokenizer's expression gives up on this text: shorten it");
    }
    found.push_back({ends[0], ends[1]});
    from = ends[1];
  }
  return found;
}

}  // namespace edge::text
