#include "text/bpe.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <numeric>
#include <queue>

#include "strict_json.h"
#include "text/byte_alphabet.h"
#include "text/json_fields.h"
#include "text/utf8.h"

namespace edge::text {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMostTokens = 1U << 24U;

// "<0x0A>" is byte 10; -1 for any other text.
std::int16_t fallback_byte(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return -1;
  int value = -1;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, value, 16);
  return error == std::errc() && end == text.data() + 5 ? static_cast<std::int16_t>(value) : std::int16_t{-1};
}

}  // namespace

Result<Bpe> Bpe::parse(const Json& model, bool byte_level) {
  Bpe bpe;
  bpe.byte_level_ = byte_level;
  bpe.bytes_.fill(kNone);
  const std::string type = text_of(model, "type");
  if (type != "BPE") {
    return fail(ErrorCode::kUnsupported, "its model is '" + printable(type) + "', and this build knows BPE");
  }
  const auto vocabulary = model.find("vocab");
  if (vocabulary == model.end() || !vocabulary->is_object() || vocabulary->empty()) {
    return fail(ErrorCode::kBadFormat, "its model has no vocabulary");
  }
  if (auto done = bpe.read_vocabulary(*vocabulary); !done) return tl::make_unexpected(done.error());
  if (auto done = bpe.read_options(model); !done) return tl::make_unexpected(done.error());
  // Merges name tokens as the file spells them.
  if (auto done = bpe.read_merges(list_of(model, "merges")); !done) return tl::make_unexpected(done.error());
  return bpe;
}

Status Bpe::read_vocabulary(const Json& vocabulary) {
  std::uint64_t highest = 0;
  for (const auto& [text, id] : vocabulary.items()) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= kMostTokens) {
      return fail(ErrorCode::kBadFormat, "the token '" + printable(text) + "' has no id below 2^24");
    }
    highest = std::max(highest, id.get<std::uint64_t>());
  }
  if (highest >= 4 * vocabulary.size() + 1024) {
    return fail(ErrorCode::kBadFormat, "its ids leave most numbers out");
  }
  std::vector<const std::string*> by_id(highest + 1, nullptr);
  for (auto entry = vocabulary.begin(); entry != vocabulary.end(); ++entry) {
    const std::string*& place = by_id[entry.value().get<std::uint64_t>()];
    if (place != nullptr) {
      return fail(ErrorCode::kBadFormat,
                  "the tokens '" + printable(*place) + "' and '" + printable(entry.key()) + "' have the same id");
    }
    place = &entry.key();
  }
  tokens_ = vocabulary.size();
  begin_.reserve(by_id.size() + 1);
  for (std::uint32_t id = 0; id < by_id.size(); ++id) {
    begin_.push_back(static_cast<std::uint32_t>(texts_.size()));
    present_.push_back(by_id[id] != nullptr);
    byte_of_.push_back(-1);
    if (by_id[id] == nullptr) continue;
    const std::string& text = *by_id[id];
    const auto spelled = byte_level_ ? bytes_of(text) : std::optional<std::string>(text);
    texts_ += spelled.value_or(text);
    // A token that is not spelled in the alphabet of bytes is only met as an added one.
    if (spelled) sorted_.push_back(id);
    if (texts_.size() > (1U << 30U)) return fail(ErrorCode::kBadFormat, "its tokens are longer than 1 GiB together");
  }
  begin_.push_back(static_cast<std::uint32_t>(texts_.size()));
  std::sort(sorted_.begin(), sorted_.end(), [&](std::uint32_t a, std::uint32_t b) { return token(a) < token(b); });
  return {};
}

Status Bpe::read_options(const Json& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text_of(model, key).empty()) {
      return fail(ErrorCode::kUnsupported, std::string("its model has a ") + key + ", which this build does not know");
    }
  }
  const auto dropout = model.find("dropout");
  if (dropout != model.end() && dropout->is_number() && dropout->get<double>() > 0) {
    return fail(ErrorCode::kUnsupported, "its model drops merges at random: save it without dropout");
  }
  byte_fallback_ = flag_of(model, "byte_fallback", false);
  fuse_unknown_ = flag_of(model, "fuse_unk", false);
  ignore_merges_ = flag_of(model, "ignore_merges", false);
  if (const std::string unknown = text_of(model, "unk_token"); !unknown.empty()) {
    unknown_ = find(byte_level_ ? bytes_of(unknown).value_or(unknown) : unknown);
  }
  if (byte_fallback_) {
    for (const std::uint32_t id : sorted_) {
      byte_of_[id] = fallback_byte(token(id));
      if (byte_of_[id] >= 0) bytes_[static_cast<std::size_t>(byte_of_[id])] = id;
    }
  }
  return {};
}

Status Bpe::read_merges(const Json& merges) {
  merges_.reserve(merges.size());
  std::uint32_t rank = 0;
  for (const Json& entry : merges) {
    std::string left;
    std::string right;
    if (entry.is_string()) {
      const auto& text = entry.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      if (space != std::string::npos) {
        left = text.substr(0, space);
        right = text.substr(space + 1);
      }
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      left = entry[0].get<std::string>();
      right = entry[1].get<std::string>();
    }
    if (byte_level_) {
      left = bytes_of(left).value_or("");
      right = bytes_of(right).value_or("");
    }
    const std::uint32_t a = find(left);
    const std::uint32_t b = find(right);
    const std::uint32_t into = find(left + right);
    if (left.empty() || a == kNone || b == kNone || into == kNone) {
      return fail(ErrorCode::kBadFormat,
                  "merge " + std::to_string(rank) + " is not of two tokens of the vocabulary to a third");
    }
    merges_.push_back({std::uint64_t{a} << 32U | b, rank++, into});
  }
  // Of a pair that stands twice the last is the one that counts.
  std::sort(merges_.begin(), merges_.end(),
            [](const Merge& a, const Merge& b) { return a.pair != b.pair ? a.pair < b.pair : a.rank > b.rank; });
  merges_.erase(
      std::unique(merges_.begin(), merges_.end(), [](const Merge& a, const Merge& b) { return a.pair == b.pair; }),
      merges_.end());
  merges_.shrink_to_fit();
  return {};
}

std::uint32_t Bpe::find(std::string_view text) const {
  const auto at = std::lower_bound(sorted_.begin(), sorted_.end(), text,
                                   [&](std::uint32_t id, std::string_view wanted) { return token(id) < wanted; });
  return at != sorted_.end() && token(*at) == text ? *at : kNone;
}

const Bpe::Merge* Bpe::find_merge(std::uint32_t left, std::uint32_t right) const {
  const std::uint64_t pair = std::uint64_t{left} << 32U | right;
  const auto at = std::lower_bound(merges_.begin(), merges_.end(), pair,
                                   [](const Merge& merge, std::uint64_t wanted) { return merge.pair < wanted; });
  return at != merges_.end() && at->pair == pair ? &*at : nullptr;
}

std::vector<std::uint32_t> Bpe::symbols(std::string_view piece) const {
  std::vector<std::uint32_t> found;
  bool after_unknown = false;
  while (!piece.empty()) {
    const std::size_t size = byte_level_ ? 1 : utf8_head(piece).size;
    const std::string_view character = piece.substr(0, size);
    piece.remove_prefix(size);
    std::uint32_t id = find(character);
    bool known = id != kNone;
    if (!known && byte_fallback_) {
      const auto byte_token = [&](char c) { return bytes_[static_cast<unsigned char>(c)]; };
      known = std::all_of(character.begin(), character.end(), [&](char c) { return byte_token(c) != kNone; });
      if (known) std::transform(character.begin(), character.end(), std::back_inserter(found), byte_token);
    } else if (known) {
      found.push_back(id);
    }
    if (!known && unknown_ != kNone && !(after_unknown && fuse_unknown_)) found.push_back(unknown_);
    after_unknown = !known;
  }
  return found;
}

void Bpe::encode(std::string_view piece, std::vector<std::uint32_t>& out) const {
  if (ignore_merges_) {
    if (const std::uint32_t whole = find(piece); whole != kNone) {
      out.push_back(whole);
      return;
    }
  }
  std::vector<std::uint32_t> all = symbols(piece);
  merge(all);
  out.insert(out.end(), all.begin(), all.end());
}

void Bpe::merge(std::vector<std::uint32_t>& symbols) const {
  // A list of symbols by index, and the pairs that may be merged: the first learnt first, then the leftmost.
  constexpr std::size_t kEnd = ~std::size_t{0};
  const std::size_t count = symbols.size();
  std::vector<std::size_t> next(count);
  std::vector<std::size_t> previous(count);
  for (std::size_t i = 0; i < count; ++i) {
    next[i] = i + 1 < count ? i + 1 : kEnd;
    previous[i] = i > 0 ? i - 1 : kEnd;
  }
  struct Candidate {
    std::uint32_t rank;
    std::size_t left;
    std::uint64_t pair;
    std::uint32_t into;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](std::size_t left) {
    if (left == kEnd || next[left] == kEnd) return;
    if (const Merge* const found = find_merge(symbols[left], symbols[next[left]])) {
      queue.push({found->rank, left, found->pair, found->into});
    }
  };
  for (std::size_t i = 0; i + 1 < count; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const std::size_t right = symbols[top.left] == kNone ? kEnd : next[top.left];
    // Either symbol may have been merged with another since.
    if (right == kEnd || (std::uint64_t{symbols[top.left]} << 32U | symbols[right]) != top.pair) continue;
    symbols[top.left] = top.into;
    symbols[right] = kNone;
    next[top.left] = next[right];
    if (next[right] != kEnd) previous[next[right]] = top.left;
    consider(previous[top.left]);
    consider(top.left);
  }
  symbols.erase(std::remove(symbols.begin(), symbols.end(), kNone), symbols.end());
}

}  // namespace edge::text
