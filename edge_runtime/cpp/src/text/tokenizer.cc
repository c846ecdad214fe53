#include "edge_runtime/tokenizer.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "byte_source.h"
#include "strict_json.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/byte_alphabet.h"
#include "text/decoder.h"
#include "text/json_fields.h"
#include "text/normalizer.h"
#include "text/splitter.h"
#include "text/utf8.h"

namespace edge {
namespace {

using text::AddedTokenFinder;
using Json = nlohmann::json;

constexpr std::uint64_t kLargestFile = 128U << 20U;
constexpr int kDeepestFile = 16;

}  // namespace

struct Tokenizer::Parts {
  text::Normalizer normalizer;
  text::Splitter splitter;
  text::Bpe bpe;
  text::Decoder decoder;
  AddedTokenFinder raw;         // of the text as it is
  AddedTokenFinder normalized;  // of the normalized text
  std::size_t vocab_size = 0;
  struct Added {
    std::string content;  // as bytes, where the decoder is byte-level and they spell some
    bool special;
  };
  std::map<std::uint32_t, Added> added = {};

  Status read(const Json& json);
  Status read_added(const Json& json);
  Status encode_section(std::string section, bool at_start, std::vector<std::uint32_t>& out) const;
};

Result<Tokenizer> Tokenizer::open(const std::string& path) {
  const auto file = open_file(path);
  if (!file) return tl::make_unexpected(file.error());
  if ((*file)->size() > kLargestFile) {
    return fail(ErrorCode::kBadFormat, path + ": not a tokenizer file: larger than 128 MiB");
  }
  std::string json((*file)->size(), '\0');
  if (auto read = (*file)->read(0, std::as_writable_bytes(std::span(json))); !read) {
    return tl::make_unexpected(read.error());
  }
  return parse(json, path);
}

Result<Tokenizer> Tokenizer::parse(std::string_view json, const std::string& name) {
  const Json parsed = parse_strict(json, kDeepestFile);
  if (!parsed.is_object()) return fail(ErrorCode::kBadFormat, name + ": not a tokenizer file: copy it again");
  auto parts = std::make_shared<Parts>();
  if (auto read = parts->read(parsed); !read) {
    return fail(read.error().code, name + ": " + read.error().message);
  }
  return Tokenizer(std::move(parts));
}

Status Tokenizer::Parts::read(const Json& json) {
  const auto member = [&](const char* key) { return json.contains(key) ? json[key] : Json(); };
  for (const char* key : {"truncation", "padding"}) {
    if (!member(key).is_null()) {
      return fail(ErrorCode::kUnsupported, std::string("it has '") + key + "': save the tokenizer without");
    }
  }
  auto parsed_normalizer = text::Normalizer::parse(member("normalizer"));
  if (!parsed_normalizer) return tl::make_unexpected(parsed_normalizer.error());
  normalizer = std::move(*parsed_normalizer);
  auto parsed_splitter = text::Splitter::parse(member("pre_tokenizer"));
  if (!parsed_splitter) return tl::make_unexpected(parsed_splitter.error());
  splitter = std::move(*parsed_splitter);
  const auto parsed_decoder = text::Decoder::parse(member("decoder"));
  if (!parsed_decoder) return tl::make_unexpected(parsed_decoder.error());
  decoder = *parsed_decoder;
  if (decoder.byte_level != splitter.byte_level()) {
    return fail(ErrorCode::kUnsupported, "only one of its pre-tokenizer and its decoder is byte-level");
  }
  const auto model = json.find("model");
  if (model == json.end() || !model->is_object()) return fail(ErrorCode::kBadFormat, "it has no model");
  auto parsed_bpe = text::Bpe::parse(*model, splitter.byte_level());
  if (!parsed_bpe) return tl::make_unexpected(parsed_bpe.error());
  bpe = std::move(*parsed_bpe);
  return read_added(json);
}

Status Tokenizer::Parts::read_added(const Json& json) {
  const auto tokens = text::parse_added_tokens(text::list_of(json, "added_tokens"));
  if (!tokens) return tl::make_unexpected(tokens.error());
  vocab_size = bpe.tokens();
  std::set<std::string> contents;
  for (const text::AddedToken& token : *tokens) {
    const auto spelled = decoder.byte_level ? text::bytes_of(token.content) : std::nullopt;
    const std::string as_bytes = spelled.value_or(token.content);
    if (bpe.has(token.id) && bpe.token(token.id) != as_bytes) {
      return fail(ErrorCode::kBadFormat,
                  "the added token '" + printable(token.content) + "' has the id of another token");
    }
    if (!contents.insert(token.content).second) {
      return fail(ErrorCode::kBadFormat, "the added token '" + printable(token.content) + "' stands twice");
    }
    if (!added.emplace(token.id, Added{as_bytes, token.special}).second) {
      return fail(ErrorCode::kBadFormat, "two added tokens have the id " + std::to_string(token.id));
    }
    if (!bpe.has(token.id)) ++vocab_size;
  }
  for (const bool is_normalized : {false, true}) {
    auto finder = AddedTokenFinder::of(*tokens, is_normalized, normalizer);
    if (!finder) return tl::make_unexpected(finder.error());
    (is_normalized ? normalized : raw) = std::move(*finder);
  }
  return {};
}

std::size_t Tokenizer::vocab_size() const { return parts_->vocab_size; }

Result<std::vector<std::uint32_t>> Tokenizer::encode(std::string_view text) const {
  const std::string clean = text::readable(text);
  std::vector<std::uint32_t> ids;
  std::size_t from = 0;
  const auto section = [&](std::size_t end) -> Status {
    return from < end ? parts_->encode_section(clean.substr(from, end - from), from == 0, ids) : Status();
  };
  for (const auto& [begin, end, id] : parts_->raw.find(clean)) {
    if (auto done = section(begin); !done) return tl::make_unexpected(done.error());
    ids.push_back(id);
    from = end;
  }
  if (auto done = section(clean.size()); !done) return tl::make_unexpected(done.error());
  return ids;
}

// Of a text without raw added tokens.
Status Tokenizer::Parts::encode_section(std::string section, bool at_start, std::vector<std::uint32_t>& out) const {
  const auto normal = normalizer.apply(std::move(section));
  if (!normal) return tl::make_unexpected(normal.error());
  std::size_t from = 0;
  const auto merge_to = [&](std::size_t end) -> Status {
    if (from >= end) return {};
    const auto pieces = splitter.apply(normal->substr(from, end - from), at_start && from == 0);
    if (!pieces) return tl::make_unexpected(pieces.error());
    for (const std::string& piece : *pieces) bpe.encode(piece, out);
    return {};
  };
  for (const auto& [begin, end, id] : normalized.find(*normal)) {
    if (auto done = merge_to(begin); !done) return done;
    out.push_back(id);
    from = end;
  }
  return merge_to(normal->size());
}

std::string Tokenizer::decode(std::span<const std::uint32_t> ids, bool follows) const {
  TextStream stream(*this, follows);
  stream.waits_ = true;
  std::string out;
  for (const std::uint32_t id : ids) out += stream.push(id);
  return out + stream.flush();
}

std::string Tokenizer::token(std::uint32_t id) const {
  if (const auto added = parts_->added.find(id); added != parts_->added.end()) return added->second.content;
  return parts_->bpe.has(id) ? text::readable(parts_->bpe.token(id)) : std::string();
}

std::string TextStream::push(std::uint32_t token) {
  const Tokenizer::Parts& parts = *tokenizer_.parts_;
  const auto added = parts.added.find(token);
  if (added != parts.added.end() && added->second.special) return {};
  if (added == parts.added.end() && !parts.bpe.has(token)) return {};
  const bool first = !begun_;
  begun_ = true;
  if (parts.decoder.byte_level) {
    held_ += added != parts.added.end() ? std::string_view(added->second.content) : parts.bpe.token(token);
    // What is whole, or wrong whatever follows, goes out.
    std::string out;
    std::string_view rest = held_;
    while (!rest.empty()) {
      const auto [kind, size] = text::utf8_head(rest);
      if (kind == text::Utf8::kCut) break;
      out += kind == text::Utf8::kWhole ? rest.substr(0, size) : text::kReplacement;
      rest.remove_prefix(size);
    }
    held_ = std::string(rest);
    return out;
  }
  if (parts.decoder.byte_fallback && parts.bpe.is_byte(token)) {
    held_ += static_cast<char>(parts.bpe.byte(token));
    return !waits_ && text::is_utf8(held_) ? std::exchange(held_, {}) : std::string();
  }
  std::string shown(added != parts.added.end() ? std::string_view(added->second.content) : parts.bpe.token(token));
  if (const std::string& space = parts.decoder.space; !space.empty()) {
    for (std::size_t at = 0; (at = shown.find(space, at)) != std::string::npos; ++at)
      shown.replace(at, space.size(), " ");
  }
  if (first && parts.decoder.strips && shown.starts_with(' ')) shown.erase(0, 1);
  return flush() + shown;
}

std::string TextStream::flush() {
  if (text::is_utf8(held_)) return std::exchange(held_, {});
  // Of byte-level tokens one cut character is left.
  std::string out;
  const std::size_t errors = tokenizer_.parts_->decoder.byte_level ? std::size_t{!held_.empty()} : held_.size();
  for (std::size_t i = 0; i < errors; ++i) out += text::kReplacement;
  held_.clear();
  return out;
}

}  // namespace edge
