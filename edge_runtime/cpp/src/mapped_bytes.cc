#include "mapped_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "file_descriptor.h"
#include "system_error.h"

namespace edge {

Result<std::shared_ptr<const MappedBytes>> MappedBytes::open(const std::string& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    return system_error(path, "open", errno);
  }
  struct stat status{};
  if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kIo, path + ": not a regular file");
  }
  if (status.st_size == 0) return fail(ErrorCode::kTruncated, path + ": it is empty: copy it again");
  const auto size = static_cast<std::size_t>(status.st_size);
  void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) return system_error(path, "mmap", errno);
  ::madvise(data, size, MADV_WILLNEED);  // all of it is read, an anchor for every token
  return std::shared_ptr<const MappedBytes>(new MappedBytes(path, static_cast<const std::byte*>(data), size));
}

MappedBytes::~MappedBytes() { ::munmap(const_cast<std::byte*>(data_), size()); }

void MappedBytes::leave() const { ::madvise(const_cast<std::byte*>(data_), size(), MADV_DONTNEED); }

Status MappedBytes::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > size() || out.size() > size() - offset) {
    return fail(ErrorCode::kTruncated, name() + ": it ends too early: copy it again");
  }
  std::memcpy(out.data(), data_ + offset, out.size());
  return {};
}

}  // namespace edge
