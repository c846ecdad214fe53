// Byte-pair encoding: a piece of text becomes the symbols that it is made of, and pairs of them are merged, the pair
// that was learnt first before all others.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/result.h"

namespace edge::text {

// Immutable; safe to share between threads.
class Bpe {
 public:
  // `model`: the file's object of the type BPE. byte_level: its tokens are spelled in the alphabet of byte-level
  // tokenizers. kBadFormat, kUnsupported; the messages name no file.
  static Result<Bpe> parse(const nlohmann::json& model, bool byte_level);

  std::size_t size() const { return begin_.size() - 1; }  // one above the highest id
  // A token's text: its bytes where byte_level.
  std::string_view token(std::uint32_t id) const {
    return std::string_view(texts_).substr(begin_[id], begin_[id + 1] - begin_[id]);
  }
  bool has(std::uint32_t id) const { return id < size() && present_[id]; }
  bool is_byte(std::uint32_t id) const { return id < size() && byte_of_[id] >= 0; }  // one of byte fallback's tokens
  unsigned char byte(std::uint32_t id) const { return static_cast<unsigned char>(byte_of_[id]); }
  std::size_t tokens() const { return tokens_; }

  void encode(std::string_view piece, std::vector<std::uint32_t>& out) const;

 private:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  struct Merge {
    std::uint64_t pair;  // left << 32 | right
    std::uint32_t rank;
    std::uint32_t into;
  };

  Status read_vocabulary(const nlohmann::json& vocabulary);
  Status read_merges(const nlohmann::json& merges);
  Status read_options(const nlohmann::json& model);
  std::uint32_t find(std::string_view text) const;  // kNone where there is no such token
  const Merge* find_merge(std::uint32_t left, std::uint32_t right) const;
  std::vector<std::uint32_t> symbols(std::string_view piece) const;
  void merge(std::vector<std::uint32_t>& symbols) const;

  bool byte_level_ = false;
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;  // a piece that is a token as a whole is that token
  std::uint32_t unknown_ = kNone;
  std::size_t tokens_ = 0;
  std::string texts_;
  std::vector<std::uint32_t> begin_;      // of each id's text, and the end
  std::vector<bool> present_;             // an id may be left out
  std::vector<std::int16_t> byte_of_;     // of each id, -1 for most
  std::vector<std::uint32_t> sorted_;     // ids that pieces are made of, by their text
  std::vector<Merge> merges_;             // by pair
  std::array<std::uint32_t, 256> bytes_;  // byte fallback's tokens
};

}  // namespace edge::text
