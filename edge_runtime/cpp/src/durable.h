// Files that appear whole or not at all.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "edge_runtime/result.h"
#include "file_descriptor.h"

namespace edge {

// A file under way: `path` + ".partial" until commit() gives it its name, so that after a crash or a power cut the old
// file or the new one is there. Thread-compatible. A failed commit() and the destructor remove the partial file.
class DurableFile {
 public:
  // Truncates what an earlier crash has left under the partial name. kIo.
  static Result<DurableFile> create(const std::string& path);
  DurableFile(DurableFile&& other) noexcept;
  DurableFile& operator=(DurableFile&&) = delete;
  ~DurableFile();

  // Writes the bytes at `offset`. kIo; some of them may have been written.
  Status write(std::uint64_t offset, std::span<const std::byte> bytes);
  // Flushes the file to the device, gives it its name, and flushes the directory. kIo: the old file, if any, is as it
  // was, unless it was the directory that could not be flushed. REQUIRES open().
  Status commit();

  // Neither committed nor failed.
  bool open() const { return fd_.valid(); }

 private:
  DurableFile(const std::string& path, FileDescriptor fd);
  void discard();
  tl::unexpected<Error> failed(const std::string& what, int error) const;

  std::string path_;
  std::string partial_;
  FileDescriptor fd_;
};

// The parts, one after another, as the durable file `path`. kIo.
Status write_durably(const std::string& path, std::span<const std::string_view> parts);

}  // namespace edge
