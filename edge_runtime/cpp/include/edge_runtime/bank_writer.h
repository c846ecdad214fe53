// The one writer of level files (docs/bank-format.md). Streams: it holds one block in memory.
#pragma once

#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "edge_runtime/bank_level.h"

namespace edge {

// Thread-compatible. The file appears under its name only when finish() succeeds: until then it is `path` + ".partial",
// which a failed finish() and the destructor remove.
class BankLevelWriter {
 public:
  // `spec.rows` blocks will be appended. kInvalidArgument or kIo.
  static Result<BankLevelWriter> create(const std::string& path, const BankLevelSpec& spec);
  BankLevelWriter(BankLevelWriter&&) noexcept = default;
  BankLevelWriter& operator=(BankLevelWriter&&) = delete;
  ~BankLevelWriter();

  // Quantises and writes the block of `node`: spec.layers() layers of the spec's tensors, row-major, f32. A block that
  // is refused leaves the file as it was.
  // kInvalidArgument: a wrong size, a node outside the level or written before, one block too many, a value that is not
  // finite.
  Status append(std::uint64_t node, std::span<const float> values);

  // Writes the tables, syncs the file and gives it its name. kInvalidArgument when blocks are missing or it is
  // finished already; kIo.
  Status finish();

 private:
  BankLevelWriter() = default;
  Status write(std::span<const std::byte> bytes);

  std::string path_;
  std::string partial_;
  BankLevelSpec spec_;
  std::ofstream file_;
  std::vector<std::byte> block_;
  std::vector<std::uint64_t> xxh3_;
  std::vector<std::int32_t> row_of_node_;
  std::int32_t next_row_ = 0;
};

}  // namespace edge
