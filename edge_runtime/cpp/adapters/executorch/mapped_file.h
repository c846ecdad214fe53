// ExecuTorch's DataLoader over a read-only mapping: segments are handed out in place, the page cache holds them once.
#pragma once

#include <executorch/runtime/core/data_loader.h>

#include <cstddef>
#include <memory>
#include <string>

#include "edge_runtime/result.h"

namespace edge::et {

class MappedFile final : public ::executorch::runtime::DataLoader {
 public:
  static Result<std::unique_ptr<MappedFile>> open(const std::string& path);
  ~MappedFile() override;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  ::executorch::runtime::Result<::executorch::runtime::FreeableBuffer> load(std::size_t offset, std::size_t size,
                                                                            const SegmentInfo& info) const override;
  ::executorch::runtime::Error load_into(std::size_t offset, std::size_t size, const SegmentInfo& info,
                                         void* buffer) const override;
  // Gives the pages back that have been read. What is read again comes back from the page cache or the file.
  void release_pages() const;
  ::executorch::runtime::Result<std::size_t> size() const override { return size_; }

 private:
  MappedFile(void* data, std::size_t size) : data_(data), size_(size) {}
  bool contains(std::size_t offset, std::size_t size) const { return offset <= size_ && size <= size_ - offset; }

  void* data_;
  std::size_t size_;
};

}  // namespace edge::et
