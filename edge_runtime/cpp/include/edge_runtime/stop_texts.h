// Ends a stream of text at the first of some texts, holding back what may become one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace edge {

// Thread-compatible.
class StopTexts {
 public:
  // REQUIRES that no text is empty.
  explicit StopTexts(std::vector<std::string> texts) : texts_(std::move(texts)) {}

  // Text that may be shown. Once reached(), the stop text and all behind it are dropped.
  std::string push(std::string_view text);
  // What was held back and became no stop text.
  std::string flush();
  bool reached() const { return reached_; }

 private:
  std::vector<std::string> texts_;
  std::string held_;
  bool reached_ = false;
};

}  // namespace edge
