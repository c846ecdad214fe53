// What the readers of headers and tables read from: a file, or, where a parser is tested, bytes in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "edge_runtime/result.h"

namespace edge {

// Thread-compatible.
class ByteSource {
 public:
  ByteSource(std::string name, std::uint64_t size) : name_(std::move(name)), size_(size) {}
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  virtual ~ByteSource() = default;

  const std::string& name() const { return name_; }  // for messages: a file's path
  std::uint64_t size() const { return size_; }

  // Reads [offset, offset + out.size()). kIo; kTruncated where the source ends before.
  virtual Status read(std::uint64_t offset, std::span<std::byte> out) const = 0;

 private:
  std::string name_;
  std::uint64_t size_;
};

// Holds the file open: a reader sees one file, whatever is renamed over its path meanwhile. kNotFound; kIo, also for
// what is no regular file.
Result<std::unique_ptr<ByteSource>> open_file(const std::string& path);

}  // namespace edge
