#include "durable.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

namespace edge {
namespace {

constexpr mode_t kMode = 0666;  // the process's mask takes its part

int flush(int fd) {
#ifdef F_FULLFSYNC
  // Apple's fsync leaves the bytes in the device's cache. Where this one is not known, it is all there is.
  if (::fcntl(fd, F_FULLFSYNC) == 0) return 0;
#endif
  return ::fsync(fd);
}

}  // namespace

DurableFile::DurableFile(const std::string& path, FileDescriptor fd)
    : path_(path), partial_(path + ".partial"), fd_(std::move(fd)) {}

DurableFile::DurableFile(DurableFile&& other) noexcept = default;

DurableFile::~DurableFile() { discard(); }

void DurableFile::discard() {
  if (!fd_.valid()) return;
  fd_ = {};
  (void)::unlink(partial_.c_str());  // a failure that is being reported matters more, and a later writer truncates it
}

tl::unexpected<Error> DurableFile::failed(const std::string& what, int error) const {
  return fail(ErrorCode::kIo, what + ": " + std::generic_category().message(error));
}

Result<DurableFile> DurableFile::create(const std::string& path) {
  DurableFile file(path, {});
  file.fd_ = FileDescriptor(::open(file.partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kMode));
  if (!file.fd_.valid()) return file.failed(file.partial_ + ": cannot be created", errno);
  return file;
}

Status DurableFile::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed(partial_ + ": writing failed", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  return {};
}

Status DurableFile::commit() {
  if (flush(fd_.get()) != 0) {
    const int error = errno;
    discard();
    return failed(partial_ + ": cannot be flushed to the device", error);
  }
  if (std::rename(partial_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    discard();
    return failed(path_ + ": cannot be renamed from " + partial_, error);
  }
  fd_ = {};
  std::string parent = std::filesystem::path(path_).parent_path().string();
  if (parent.empty()) parent = ".";
  const FileDescriptor directory(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || flush(directory.get()) != 0) {
    return failed(parent + ": cannot be flushed to the device", errno);
  }
  return {};
}

Status write_durably(const std::string& path, std::span<const std::string_view> parts) {
  auto file = DurableFile::create(path);
  if (!file) return tl::make_unexpected(std::move(file.error()));
  std::uint64_t offset = 0;
  for (const std::string_view part : parts) {
    if (auto written = file->write(offset, std::as_bytes(std::span(part))); !written) return written;
    offset += part.size();
  }
  return file->commit();
}

}  // namespace edge
