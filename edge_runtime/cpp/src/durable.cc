#include "durable.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace edge {
namespace {

Status sync_path(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return fail(ErrorCode::kIo, path + ": cannot be opened: " + std::strerror(errno));
  }
  const int synced = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  if (synced != 0) {
    return fail(ErrorCode::kIo, path + ": cannot be flushed to the device: " + std::strerror(error));
  }
  return {};
}

}  // namespace

Status replace_durably(const std::string& from, const std::string& to) {
  if (auto status = sync_path(from); !status) {
    return status;
  }
  if (std::rename(from.c_str(), to.c_str()) != 0) {
    return fail(ErrorCode::kIo, to + ": cannot be renamed from " + from + ": " + std::strerror(errno));
  }
  const std::string parent = std::filesystem::path(to).parent_path().string();
  return sync_path(parent.empty() ? "." : parent);
}

}  // namespace edge
