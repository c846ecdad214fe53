#include "byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "file_descriptor.h"

namespace edge {
namespace {

tl::unexpected<Error> failed(const std::string& path, const char* call, int error) {
  return fail(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
              path + ": " + call + ": " + std::generic_category().message(error));
}

class File final : public ByteSource {
 public:
  File(const std::string& path, std::uint64_t size, FileDescriptor fd) : ByteSource(path, size), fd_(std::move(fd)) {}

  Status read(std::uint64_t offset, std::span<std::byte> out) const override {
    std::size_t done = 0;
    while (done < out.size()) {
      const ssize_t got = ::pread(fd_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got < 0) {
        return failed(name(), "read", errno);
      }
      if (got == 0) {
        return fail(ErrorCode::kTruncated, name() + ": ends before byte " + std::to_string(offset + out.size()));
      }
      done += static_cast<std::size_t>(got);
    }
    return {};
  }

 private:
  FileDescriptor fd_;
};

}  // namespace

Result<std::unique_ptr<ByteSource>> open_file(const std::string& path) {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    return failed(path, "open", errno);
  }
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) {
    return failed(path, "stat", errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return fail(ErrorCode::kIo, path + ": not a regular file");
  }
  return std::make_unique<File>(path, static_cast<std::uint64_t>(info.st_size), std::move(fd));
}

}  // namespace edge
