// Maps the file and faults the pages of a request in on a pool thread: nothing is copied.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "edge_runtime/dtype.h"
#include "file_descriptor.h"
#include "storage_queued.h"
#include "system_error.h"

namespace edge {

namespace {

#if defined(__linux__) && !defined(MADV_POPULATE_READ)
#define MADV_POPULATE_READ 22  // Linux 5.14; older C libraries do not name it
#endif

// One WILLNEED call reads no more than the device's read-ahead or request limit: ask in steps below it.
constexpr std::uint64_t kWillNeedStep = std::uint64_t{128} * 1024;

class MappedStorage final : public QueuedStorage {
 public:
  MappedStorage(std::shared_ptr<Device> device, StorageReport storage_report, std::uint64_t bytes, FileDescriptor fd,
                std::byte* base)
      : QueuedStorage(std::move(device), std::move(storage_report), bytes), fd_(std::move(fd)), base_(base) {}
  MappedStorage(const MappedStorage&) = delete;
  MappedStorage& operator=(const MappedStorage&) = delete;
  void trim() override { device().memory().trim(); }
  ~MappedStorage() override {
    drain();
    ::munmap(base_, file_bytes());
  }

  Result<Buffer> acquire(std::uint64_t offset, std::uint64_t length) override {
    device().memory().charge(length);
    return Buffer(base_ + offset, BufferRelease{forget, &device().memory(), length});
  }

 private:
  static void forget(void* memory, std::byte* data, std::uint64_t length) {
#ifdef MADV_COLD
    // First in line when memory runs short, and still there when the block is wanted again before that. MADV_PAGEOUT
    // would throw the pages away at once, and the next fetch would be cold.
    ::madvise(data, length, MADV_COLD);
#endif
    ::madvise(data, length, MADV_DONTNEED);
    static_cast<BlockMemory*>(memory)->discharge(length);
  }

  Status read(const ReadRequest& request) override {
    if (auto there = still_there(request.offset + request.length); !there) return there;
    // Whole pages around the range.
    const std::uint64_t begin = request.offset / kPage * kPage;
    const std::uint64_t end = std::min((request.offset + request.length + kPage - 1) / kPage * kPage, file_bytes());
    if (request.again) {
      ::madvise(base_ + begin, end - begin, MADV_DONTNEED);
#ifdef POSIX_FADV_DONTNEED
      (void)::posix_fadvise(fd_.get(), static_cast<off_t>(begin), static_cast<off_t>(end - begin), POSIX_FADV_DONTNEED);
#endif
    }
    for (std::uint64_t at = begin; at < end; at += kWillNeedStep) {
      ::madvise(base_ + at, std::min(kWillNeedStep, end - at), MADV_WILLNEED);
    }
    return populate(begin, end);
  }

  Status populate(std::uint64_t begin, std::uint64_t end) {
#ifdef MADV_POPULATE_READ
    // Also turns what would be SIGBUS (a page that is gone or cannot be read) into an error.
    while (::madvise(base_ + begin, end - begin, MADV_POPULATE_READ) != 0) {
      const int error = errno;
      if (error == EINTR || error == EAGAIN) continue;
      if (error == EINVAL) return touch(begin, end);  // an older kernel
      if (auto there = still_there(end); !there) return there;
      return system_error(report().path, "read of mapped pages at " + std::to_string(begin), error);
    }
    return {};
#else
    return touch(begin, end);
#endif
  }

  Status touch(std::uint64_t begin, std::uint64_t end) {
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    for (std::uint64_t at = begin; at < end; at += page) (void)*static_cast<volatile std::byte*>(base_ + at);
    return {};
  }

  Status still_there(std::uint64_t end) const {
    struct stat info{};
    if (::fstat(fd_.get(), &info) != 0) return system_error(report().path, "stat", errno);
    if (end <= static_cast<std::uint64_t>(info.st_size)) return {};
    return fail(ErrorCode::kTruncated, report().path + ": ends at " + std::to_string(info.st_size) +
                                           ", inside a block: it was truncated in place; restore it, and replace "
                                           "files by rename only");
  }

  FileDescriptor fd_;
  std::byte* base_;
};

}  // namespace

Result<std::unique_ptr<Storage>> open_mapped(const std::string& path, std::shared_ptr<Device> device,
                                             const std::string& why) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return system_error(path, "open", errno);
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return system_error(path, "stat", errno);
  if (info.st_size == 0) return fail(ErrorCode::kTruncated, path + ": is empty; restore it");
  const auto bytes = static_cast<std::uint64_t>(info.st_size);
  void* const base = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) return system_error(path, "mmap", errno);
  StorageReport report{path, "mapped", why + "; pages are populated as blocks are asked for"};
  return std::make_unique<MappedStorage>(std::move(device), std::move(report), bytes, std::move(fd),
                                         static_cast<std::byte*>(base));
}

}  // namespace edge
