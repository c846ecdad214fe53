// The one writer of level files (docs/bank-format.md). Streams: it holds one block in memory; of copied blocks, one
// layer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "edge_runtime/bank_level.h"

namespace edge {

class DurableFile;

// Thread-compatible. The file appears under its name only when finish() succeeds: until then it is `path` + ".partial",
// which a failed finish() and the destructor remove.
class BankLevelWriter {
 public:
  // `spec.rows` blocks will be appended. kInvalidArgument or kIo.
  static Result<BankLevelWriter> create(const std::string& path, const BankLevelSpec& spec);
  BankLevelWriter(BankLevelWriter&&) noexcept;
  BankLevelWriter& operator=(BankLevelWriter&&) = delete;
  ~BankLevelWriter();

  // Quantises and writes the block of `node`: spec.layers() layers of the spec's tensors, row-major, f32. A block that
  // is refused leaves the file as it was.
  // kInvalidArgument: a wrong size, a node outside the level or written before, one block too many, a value that is not
  // finite.
  Status append(std::uint64_t node, std::span<const float> values);

  // Gives `node` a block of zeros that takes no room on a file system with sparse files: for banks of which only the
  // size matters. kInvalidArgument: as append.
  Status append_hole(std::uint64_t node);

  // Writes the block of `node` as `source` has it, without another quantisation; each layer is verified on its way.
  // A block that is refused leaves the file as it was.
  // kInvalidArgument: as append, or a source of another kind, shape or dtype. kNotFound: the source has no such block.
  // kChecksum or kBadFormat, naming the place: the source is damaged. kIo, kTruncated.
  Status copy(std::uint64_t node, const BankLevel& source);

  // Writes the tables, syncs the file and gives it its name. kInvalidArgument when blocks are missing or it is
  // finished already; kIo.
  Status finish();

 private:
  BankLevelWriter(std::string path, BankLevelSpec spec, std::unique_ptr<DurableFile> file);
  Status check_next(std::uint64_t node) const;
  std::uint64_t next_offset() const;
  Status copy_layers(std::uint64_t node, const BankLevel& source);
  void take_row(std::uint64_t node);

  std::string path_;
  BankLevelSpec spec_;
  std::unique_ptr<DurableFile> file_;
  std::uint64_t data_start_ = 0;
  std::vector<std::byte> block_;                // scratch
  std::optional<std::uint64_t> hole_checksum_;  // of any layer of a hole
  std::vector<std::uint64_t> xxh3_;
  std::vector<std::int32_t> row_of_node_;
  std::int32_t next_row_ = 0;
};

}  // namespace edge
