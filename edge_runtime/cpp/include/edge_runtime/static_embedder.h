// The lightweight text embedder: rows of a table, pooled and mapped into the router's space (docs/bundle-format.md,
// router/static.safetensors). It takes token ids of the anchor's own tokenizer, and no neural network runs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "edge_runtime/result.h"

namespace edge {

class ByteSource;  // src/byte_source.h

// The tables of the file, row after row. An embedder of n-grams has a row for each of `ngram_rows` buckets.
struct StaticTables {
  std::uint32_t vocab_size = 0;
  std::uint32_t width = 0;               // of a row
  std::uint32_t dim = 0;                 // of an embedding
  std::uint32_t order = 1;               // the longest n-gram that is looked up; 1 for tokens alone
  std::uint32_t ngram_rows = 0;          // 0 exactly where order is 1
  std::vector<float> token_scales = {};  // [vocab_size]
  std::vector<float> ngram_scales = {};  // [ngram_rows]
  std::vector<float> map = {};           // [width, dim]
  std::vector<float> bias = {};          // [dim]
  std::vector<std::int8_t> tokens = {};  // [vocab_size, width]
  std::vector<std::int8_t> ngrams = {};  // [ngram_rows, width]
};

// The bucket of an n-gram. REQUIRES rows > 0.
std::uint64_t ngram_bucket(std::span<const std::uint32_t> ids, std::uint64_t rows);

// Immutable after open; safe to share between threads.
class StaticEmbedder {
 public:
  // kNotFound, kIo, kTruncated, kBadFormat, kUnsupported. The rows of tokens and n-grams stay in the file, which is
  // mapped: a prompt reads a few of them. REQUIRES that the file is never written to, only replaced.
  static Result<StaticEmbedder> open(const std::string& path);
  // The same of bytes that lie anywhere, which are copied: the seam for fuzzing.
  static Result<StaticEmbedder> read(const ByteSource& source);

  std::uint32_t vocab_size() const { return tables_->vocab_size; }
  std::uint32_t dim() const { return tables_->dim; }
  std::uint64_t bytes() const;  // of the tables

  // Writes the embedding, L2-normalised, to `out`. No ids give the direction of the bias; a sum of zero stays zero.
  // The result is always finite. kInvalidArgument where an id is not below vocab_size or out.size() is not dim.
  Status embed(std::span<const std::uint32_t> ids, std::span<float> out) const;

 private:
  StaticEmbedder() = default;
  // data: the source's bytes where they stay, which `held` keeps, or null: then they are copied.
  static Result<StaticEmbedder> read(const ByteSource& source, const std::byte* data, std::shared_ptr<const void> held);

  std::shared_ptr<const StaticTables> tables_;  // without the rows of tokens and n-grams where those stay in the file
  std::span<const std::int8_t> tokens_;
  std::span<const std::int8_t> ngrams_;
  std::shared_ptr<const void> held_;  // the file
};

// Writes the file that StaticEmbedder::open reads; it appears whole or not at all. kInvalidArgument where a table has
// another size than the numbers say or a value that the format forbids; kIo.
Status write_static_embedder(const std::string& path, const StaticTables& tables);

}  // namespace edge
