// A whole file, mapped to be read.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "byte_source.h"

namespace edge {

class MappedBytes final : public ByteSource {
 public:
  // kNotFound, kIo; kTruncated where it is empty.
  static Result<std::shared_ptr<const MappedBytes>> open(const std::string& path);
  ~MappedBytes() override;
  MappedBytes(const MappedBytes&) = delete;
  MappedBytes& operator=(const MappedBytes&) = delete;

  Status read(std::uint64_t offset, std::span<std::byte> out) const override;
  const std::byte* data() const { return data_; }
  // Its pages are no longer resident; they come back from the file where they are read.
  void leave() const;

 private:
  MappedBytes(const std::string& path, const std::byte* data, std::size_t size) : ByteSource(path, size), data_(data) {}

  const std::byte* data_;
};

}  // namespace edge
