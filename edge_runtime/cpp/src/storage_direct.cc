// Reads past the page cache into memory of our own: whole pages through the ring where there is one, everything else on
// the pool.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "direct_probe.h"
#include "edge_runtime/dtype.h"
#include "file_descriptor.h"
#include "storage_queued.h"
#include "system_error.h"

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

class DirectStorage final : public QueuedStorage {
 public:
  // `direct` is invalid where reads cannot skip the page cache; `ring` is null where the pool does all.
  DirectStorage(std::shared_ptr<Device> device, StorageReport storage_report, std::uint64_t bytes,
                FileDescriptor buffered, FileDescriptor direct, IoRing* ring)
      : QueuedStorage(std::move(device), std::move(storage_report), bytes),
        buffered_(std::move(buffered)),
        direct_(std::move(direct)),
        ring_(ring) {}
  DirectStorage(const DirectStorage&) = delete;
  DirectStorage& operator=(const DirectStorage&) = delete;
  ~DirectStorage() override { drain(); }

  Result<Buffer> acquire(std::uint64_t /*offset*/, std::uint64_t length) override {
    return device().memory().acquire(length, report().path);
  }
  void trim() override { device().memory().trim(); }
  std::size_t depth() const override { return ring_ != nullptr ? device().depth() : QueuedStorage::depth(); }

 private:
  static bool aligned(const ReadRequest& request) {
    const auto address = reinterpret_cast<std::uintptr_t>(request.destination);
    return (request.offset | request.length | address) % kPage == 0;
  }

  void begin(const ReadRequest& request) override {
    if (ring_ == nullptr || !aligned(request)) return read_on_pool(request);
    ring_->read({.fd = direct_.get(),
                 .offset = request.offset,
                 .length = request.length,
                 .destination = request.destination,
                 .wanted = [this] { return !dropped(); },
                 .done =
                     [this, request](std::int64_t result) {
                       const bool whole = result == static_cast<std::int64_t>(request.length);
                       if (whole || dropped()) return finish(request.tag, {});
                       // Interrupted, failed or cut short by the file's end: the other way finds out and says.
                       read_on_pool(request);
                     }});
  }

  Status read(const ReadRequest& request) override {
    const bool cached = !direct_.valid() || !aligned(request);
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
  IoRing* ring_;
};

}  // namespace

Result<std::unique_ptr<Storage>> open_direct(const std::string& path, std::shared_ptr<Device> device,
                                             const std::string& why, StorageKind kind) {
  if (kind != StorageKind::kDirect && kind != StorageKind::kUring) {
    return fail(ErrorCode::kInvalidArgument, path + ": storage " + std::string(name(kind)) + " is not a direct one");
  }
  FileDescriptor buffered(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!buffered.valid()) return system_error(path, "open", errno);
  struct stat info{};
  if (::fstat(buffered.get(), &info) != 0) return system_error(path, "stat", errno);
#ifdef POSIX_FADV_RANDOM
  // Blocks are read whole: read-ahead beyond them would be bytes for nothing.
  (void)::posix_fadvise(buffered.get(), 0, 0, POSIX_FADV_RANDOM);
#endif
  Uncached uncached = open_uncached(path, buffered.get(), info);
  std::string how = uncached.reason;
  IoRing* ring = nullptr;
  if (!uncached.fd.valid()) {
    how += "; buffered reads, their pages dropped at once";
  } else if (kind == StorageKind::kUring) {
    if (const auto found = device->ring().open()) {
      ring = *found;
    } else {
      how += "; " + found.error().message;
    }
  }
  if (kind == StorageKind::kUring && ring == nullptr) {
    return fail(ErrorCode::kUnsupported, path + ": storage uring does not work here (" + how + "); use direct");
  }
  const std::string backend = !uncached.fd.valid() ? "buffered/pool"
                              : ring != nullptr    ? "direct/io_uring"
                                                   : "direct/pool";
  return std::make_unique<DirectStorage>(std::move(device), StorageReport{path, backend, why + "; " + how},
                                         static_cast<std::uint64_t>(info.st_size), std::move(buffered),
                                         std::move(uncached.fd), ring);
}

}  // namespace edge
