#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <vector>

#include "raw_reader.h"

namespace edge::bench {

Result<double> page_cache_share(const std::string& path, std::uint64_t offset, std::uint64_t length) {
  const auto failed = [&](const char* what) {
    const int error = errno;
    return fail(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                path + ": " + what + ": " + std::generic_category().message(error));
  };
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return failed("open");
  struct stat info{};
  const bool known = ::fstat(descriptor, &info) == 0;
  const auto size = known ? static_cast<std::uint64_t>(info.st_size) : 0;
  if (length == 0 || offset > size || length > size - offset) {
    ::close(descriptor);
    return fail(ErrorCode::kInvalidArgument,
                path + ": has no " + std::to_string(length) + " bytes at offset " + std::to_string(offset));
  }
  // Mapping reads nothing; mincore then tells which pages are there.
  void* const data = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, descriptor, static_cast<off_t>(offset));
  ::close(descriptor);
  if (data == MAP_FAILED) return failed("mmap");
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> states((length + page - 1) / page);
  const bool told = ::mincore(data, length, states.data()) == 0;
  ::munmap(data, length);
  if (!told) return failed("mincore");
  const auto there = std::count_if(states.begin(), states.end(), [](unsigned char state) { return (state & 1U) != 0; });
  return static_cast<double>(there) / static_cast<double>(states.size());
}

}  // namespace edge::bench
