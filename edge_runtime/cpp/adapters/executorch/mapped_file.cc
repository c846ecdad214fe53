#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace edge::et {

using ::executorch::runtime::FreeableBuffer;
using RuntimeError = ::executorch::runtime::Error;

Result<std::unique_ptr<MappedFile>> MappedFile::open(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    const int reason = errno;
    return fail(reason == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, path + ": " + std::strerror(reason));
  }
  struct stat status{};
  if (::fstat(file, &status) != 0 || status.st_size <= 0) {
    ::close(file);
    return fail(ErrorCode::kTruncated, path + ": an empty file is no ExecuTorch program: export it again");
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  const int reason = errno;
  ::close(file);
  if (data == MAP_FAILED) {
    return fail(ErrorCode::kIo, path + ": " + std::strerror(reason));
  }
  return std::unique_ptr<MappedFile>(new MappedFile(data, size));
}

void MappedFile::release_pages() const { ::madvise(data_, size_, MADV_DONTNEED); }

MappedFile::~MappedFile() { ::munmap(data_, size_); }

::executorch::runtime::Result<FreeableBuffer> MappedFile::load(std::size_t offset, std::size_t size,
                                                               const SegmentInfo& /*info*/) const {
  if (!contains(offset, size)) {
    return RuntimeError::InvalidProgram;
  }
  return FreeableBuffer(static_cast<const std::byte*>(data_) + offset, size, /*free_fn=*/nullptr);
}

RuntimeError MappedFile::load_into(std::size_t offset, std::size_t size, const SegmentInfo& /*info*/,
                                   void* buffer) const {
  if (!contains(offset, size)) {
    return RuntimeError::InvalidProgram;
  }
  std::memcpy(buffer, static_cast<const std::byte*>(data_) + offset, size);
  return RuntimeError::Ok;
}

}  // namespace edge::et
