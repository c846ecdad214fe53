// Reads and validates the header and tables of one level file (docs/bank-format.md). Does not read blocks:
// that is the pager's work. Every bound is checked before it is used: a hostile file yields an Error.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "edge_runtime/dtype.h"
#include "edge_runtime/result.h"

namespace edge {

class ByteSource;  // src/byte_source.h

struct TensorShape {
  std::string name;
  std::uint64_t rows;
  std::uint64_t columns;
};

// What the header says, after validation: the arithmetic below cannot overflow or leave the file.
struct BankLevelSpec {
  std::string kind;  // "ffn", "lora_qk", "lora_vo", "lora_ffn" or "kv"
  std::uint32_t level = 0;
  std::uint32_t fanout = 0;
  DType dtype = DType::kF32;
  std::uint32_t d_model = 0;
  std::uint32_t rows_per_block = 0;          // r
  std::vector<std::uint32_t> anchor_layers;  // ascending
  std::vector<TensorShape> tensors;          // of one layer, in order
  std::uint64_t rows = 0;                    // blocks in the file
  std::uint64_t nodes = 0;                   // fanout^level

  std::uint64_t layers() const { return anchor_layers.size(); }
  std::uint64_t layer_scale_bytes() const;  // unpadded: the scales of one layer
  std::uint64_t scale_bytes() const;        // the scale plane, padded to 64
  std::uint64_t layer_bytes() const;        // one layer's tensors, padded to 64
  std::uint64_t stride() const;             // a whole block, padded to kPage

  // Offsets inside a block.
  std::uint64_t scale_offset(std::uint64_t layer) const { return layer * layer_scale_bytes(); }
  std::uint64_t layer_offset(std::uint64_t layer) const { return scale_bytes() + layer * layer_bytes(); }
};

// A spec of any kind of memory; `tensors` are a layer's, each of rows_per_block rows. kInvalidArgument where the format
// forbids it.
Result<BankLevelSpec> level_spec(std::string kind, std::vector<TensorShape> tensors, std::uint32_t level,
                                 std::uint32_t fanout, DType dtype, std::uint32_t d_model, std::uint32_t rows_per_block,
                                 std::vector<std::uint32_t> anchor_layers, std::uint64_t rows);

// An FFN spec with the tensors w1, w2, w3 of [r, d]. kInvalidArgument where the format forbids it.
Result<BankLevelSpec> ffn_level_spec(std::uint32_t level, std::uint32_t fanout, DType dtype, std::uint32_t d_model,
                                     std::uint32_t rows_per_block, std::vector<std::uint32_t> anchor_layers,
                                     std::uint64_t rows);

// Immutable after open; safe to share between threads.
class BankLevel {
 public:
  // kNotFound, kIo, kTruncated, kBadFormat, kUnsupported.
  static Result<BankLevel> open(const std::string& path);
  // The same of bytes that lie anywhere: the seam for fuzzing.
  static Result<BankLevel> read(const ByteSource& source);
  // A level without a file, where every node has its block, in order: for simulations, which need no more than where
  // blocks lie. Its checksums are zeros. REQUIRES a spec of ffn_level_spec with as many rows as nodes.
  static BankLevel blank(std::string name, BankLevelSpec spec);

  const std::string& path() const { return path_; }
  const BankLevelSpec& spec() const { return spec_; }
  std::uint64_t data_start() const { return data_start_; }
  std::uint64_t file_bytes() const { return file_bytes_; }

  // The file offset of a row's block. REQUIRES row < spec().rows.
  std::uint64_t block_offset(std::uint64_t row) const { return data_start_ + row * spec_.stride(); }
  // The row that holds the node's block, -1 if the file has none. REQUIRES node < spec().nodes.
  std::int32_t row_of(std::uint64_t node) const { return row_of_node_[node]; }
  // The expected XXH3-64 of one layer of one row.
  std::uint64_t checksum(std::uint64_t row, std::uint64_t layer) const { return xxh3_[row * spec_.layers() + layer]; }

 private:
  BankLevel() = default;
  std::string path_;
  BankLevelSpec spec_;
  std::uint64_t data_start_ = 0;
  std::uint64_t file_bytes_ = 0;
  std::vector<std::int32_t> row_of_node_;
  std::vector<std::uint64_t> xxh3_;
};

// XXH3-64 over the layer's scales, then its bytes. REQUIRES block.size() == spec.stride().
std::uint64_t layer_checksum(const BankLevelSpec& spec, std::span<const std::byte> block, std::uint64_t layer);

// The same of one layer's scales and bytes, wherever they lie.
std::uint64_t layer_checksum(std::span<const std::byte> scales, std::span<const std::byte> data);

// Whether the layer's scales are finite and their sign bits clear. REQUIRES that the block has its scale plane.
bool scales_are_valid(const BankLevelSpec& spec, std::span<const std::byte> block, std::uint64_t layer);

}  // namespace edge
