// Reads past the page cache into anonymous memory.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "edge_runtime/dtype.h"
#include "file_descriptor.h"
#include "read_pool.h"

namespace edge {

namespace {

// Tells the system that cached pages of the range are not needed again. Advice: a failure changes nothing.
void drop_cache(int fd, std::uint64_t offset, std::uint64_t length) {
#ifdef POSIX_FADV_DONTNEED
  // Only whole pages are dropped: widen, or a damaged page at an edge would be read again from the cache.
  const std::uint64_t begin = offset / kPage * kPage;
  const std::uint64_t end = (offset + length + kPage - 1) / kPage * kPage;
  (void)::posix_fadvise(fd, static_cast<off_t>(begin), static_cast<off_t>(end - begin), POSIX_FADV_DONTNEED);
#else
  (void)fd, (void)offset, (void)length;
#endif
}

class DirectStorage final : public PooledStorage {
 public:
  // `direct` is invalid where the file system refuses uncached reads.
  DirectStorage(std::shared_ptr<ReadPool> pool, StorageReport storage_report, std::uint64_t bytes,
                FileDescriptor buffered, FileDescriptor direct)
      : PooledStorage(std::move(pool), std::move(storage_report), bytes),
        buffered_(std::move(buffered)),
        direct_(std::move(direct)) {}
  ~DirectStorage() override { drain(); }

  Result<Buffer> acquire(std::uint64_t /*offset*/, std::uint64_t length) override {
    // Not malloc: its heap keeps freed blocks resident, and a budget that the process exceeds is none.
    void* const data = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
      return system_error(report().path, "no memory for a block of " + std::to_string(length) + " bytes", errno);
    }
    return Buffer(static_cast<std::byte*>(data), BufferRelease{unmap, length});
  }

 private:
  static void unmap(std::byte* data, std::uint64_t length) { ::munmap(data, length); }

  Status read(const ReadRequest& request) override {
    const auto address = reinterpret_cast<std::uintptr_t>(request.destination);
    const bool aligned = (request.offset | request.length | address) % kPage == 0;
    const bool cached = !direct_.valid() || !aligned;
    if (cached && request.again) drop_cache(buffered_.get(), request.offset, request.length);
    std::uint64_t done = 0;
    while (done < request.length) {
      // What follows a short direct read is not aligned any more: the system would call it invalid, not the file's end.
      const int fd = cached || done % kPage != 0 ? buffered_.get() : direct_.get();
      const ssize_t got =
          ::pread(fd, request.destination + done, request.length - done, static_cast<off_t>(request.offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return system_error(report().path, "read at " + std::to_string(request.offset + done), errno);
      if (got == 0) {
        return fail(ErrorCode::kTruncated, report().path + ": ends at " + std::to_string(request.offset + done) +
                                               ", inside a block: it was truncated; restore it");
      }
      done += static_cast<std::uint64_t>(got);
    }
    if (cached) drop_cache(buffered_.get(), request.offset, request.length);
    return {};
  }

  FileDescriptor buffered_;
  FileDescriptor direct_;
};

// A descriptor whose reads skip the page cache, or the reason why there is none.
struct Uncached {
  FileDescriptor fd;
  std::string refusal;
};

#ifdef __APPLE__
Uncached open_uncached(const std::string& path, const struct stat& /*expected*/) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid() || ::fcntl(fd.get(), F_NOCACHE, 1) != 0) {
    return {{}, "F_NOCACHE: " + std::generic_category().message(errno)};
  }
  return {std::move(fd), ""};
}
constexpr const char* kUncachedReads = "F_NOCACHE reads";
#else
Uncached open_uncached(const std::string& path, const struct stat& expected) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  if (!fd.valid()) return {{}, "O_DIRECT refused: " + std::generic_category().message(errno)};
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0 || info.st_ino != expected.st_ino || info.st_dev != expected.st_dev) {
    return {{}, "the file was replaced while it was opened"};
  }
  // Some file systems take the flag and fail the reads.
  void* const page = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return {{}, "no memory for the probe read"};
  const bool works = ::pread(fd.get(), page, kPage, 0) >= 0;
  const int error = errno;
  ::munmap(page, kPage);
  if (!works) return {{}, "O_DIRECT read refused: " + std::generic_category().message(error)};
  return {std::move(fd), ""};
}
constexpr const char* kUncachedReads = "O_DIRECT reads";
#endif

}  // namespace

Result<std::unique_ptr<Storage>> open_direct(const std::string& path, std::shared_ptr<ReadPool> pool,
                                             const std::string& why) {
  FileDescriptor buffered(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!buffered.valid()) return system_error(path, "open", errno);
  struct stat info{};
  if (::fstat(buffered.get(), &info) != 0) return system_error(path, "stat", errno);
  Uncached uncached = open_uncached(path, info);
  const bool works = uncached.fd.valid();
#ifdef POSIX_FADV_RANDOM
  // Blocks are read whole: read-ahead beyond them would be bytes for nothing.
  (void)::posix_fadvise(buffered.get(), 0, 0, POSIX_FADV_RANDOM);
#endif
  const std::string how = works ? kUncachedReads : uncached.refusal + "; buffered reads, their pages dropped at once";
  StorageReport report{path, works ? "direct" : "buffered", why + "; " + how};
  return std::make_unique<DirectStorage>(std::move(pool), std::move(report), static_cast<std::uint64_t>(info.st_size),
                                         std::move(buffered), std::move(uncached.fd));
}

}  // namespace edge
