// Reads a Hugging Face tokenizer.json and turns text into token ids and back, as the package `tokenizers` does without
// special tokens added: byte-level BPE and SentencePiece-style BPE (with byte fallback).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/result.h"

namespace edge {

// Immutable; cheap to copy; safe to share between threads.
class Tokenizer {
 public:
  // kNotFound, kIo; kBadFormat: no tokenizer file; kUnsupported: a model or step that this reader does not know, which
  // the message names.
  static Result<Tokenizer> open(const std::string& path);
  // The same of a file's text; `name` is for messages. The seam for fuzzing.
  static Result<Tokenizer> parse(std::string_view json, const std::string& name);

  // All tokens, those that were added to the model's own among them.
  std::size_t vocab_size() const;

  // Bytes that are not UTF-8 count as U+FFFD. Added tokens are found in the text. kUnsupported: the file's pattern
  // gives up on this text.
  Result<std::vector<std::uint32_t>> encode(std::string_view text) const;

  // The text of the ids; special tokens and ids beyond the vocabulary give none. `follows`: the text goes on from other
  // tokens, so that a decoder that treats a text's beginning apart leaves it alone.
  std::string decode(std::span<const std::uint32_t> ids, bool follows = false) const;

  // A token by itself, special ones too: what chat templates write. Empty for ids beyond the vocabulary.
  std::string token(std::uint32_t id) const;

  struct Parts;

 private:
  friend class TextStream;
  explicit Tokenizer(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

  std::shared_ptr<const Parts> parts_;
};

// Decodes tokens one by one: text comes out as soon as its characters are whole. Thread-compatible.
class TextStream {
 public:
  TextStream(Tokenizer tokenizer, bool follows) : tokenizer_(std::move(tokenizer)), begun_(follows) {}

  std::string push(std::uint32_t token);  // text that the token completes
  std::string flush();                    // what is left at the end, whole or not

 private:
  friend class Tokenizer;

  Tokenizer tokenizer_;
  bool begun_;
  // A run of fallback bytes that is no text is one error a byte, of what had been text by itself too: who has all the
  // tokens waits for a run's end.
  bool waits_ = false;
  std::string held_;  // bytes of a character under way
};

}  // namespace edge
