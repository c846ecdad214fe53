#include "edge_runtime/stop_texts.h"

#include <algorithm>
#include <utility>

namespace edge {

std::string StopTexts::push(std::string_view text) {
  held_ += text;
  std::size_t end = std::string::npos;
  std::size_t overlap = 0;  // how much of the text's end begins a stop text
  for (const std::string& stop : texts_) {
    end = std::min(end, held_.find(stop));
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > overlap; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) overlap = n;
    }
  }
  if (end != std::string::npos) {
    reached_ = true;
    return std::exchange(held_, {}).substr(0, end);
  }
  const std::string shown = held_.substr(0, held_.size() - overlap);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopTexts::flush() { return std::exchange(held_, {}); }

}  // namespace edge
