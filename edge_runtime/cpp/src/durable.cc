#include "durable.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

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
  std::error_code ignored;  // the failure that is reported matters more
  if (auto status = sync_path(from); !status) {
    std::filesystem::remove(from, ignored);
    return status;
  }
  if (std::rename(from.c_str(), to.c_str()) != 0) {
    const int error = errno;
    std::filesystem::remove(from, ignored);
    return fail(ErrorCode::kIo, to + ": cannot be renamed from " + from + ": " + std::strerror(error));
  }
  const std::string parent = std::filesystem::path(to).parent_path().string();
  return sync_path(parent.empty() ? "." : parent);
}

Status write_durably(const std::string& path, std::span<const std::string_view> parts) {
  const std::string partial = path + ".partial";
  std::ofstream file(partial, std::ios::binary | std::ios::trunc);
  const bool created = file.is_open();
  for (const std::string_view part : parts) {
    file.write(part.data(), static_cast<std::streamsize>(part.size()));
  }
  file.close();
  if (!file) {
    const int error = errno;
    if (std::error_code ignored; created) {
      std::filesystem::remove(partial, ignored);
    }
    return fail(ErrorCode::kIo, partial + ": writing failed: " + std::strerror(error));
  }
  return replace_durably(partial, path);
}

}  // namespace edge
