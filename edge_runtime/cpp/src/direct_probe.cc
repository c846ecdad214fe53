#include "direct_probe.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/magic.h>
#include <sys/vfs.h>
#endif

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "edge_runtime/dtype.h"

namespace edge {

namespace {

std::string text_of(int error) { return std::generic_category().message(error); }

#ifdef __linux__

// A range of a file, to ask which of its pages are cached. Asking touches none.
class Window {
 public:
  Window(int fd, std::uint64_t offset, std::uint64_t length)
      : base_(::mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(offset))), length_(length) {}
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;
  ~Window() {
    if (valid()) ::munmap(base_, length_);
  }

  bool valid() const { return base_ != MAP_FAILED; }
  // Whether the page at `at` in the window is cached. One byte stands for its page: emulators whose pages are larger
  // than the kernel's would have it answer for several, beyond `state`.
  bool cached(std::uint64_t at) const {
    unsigned char state = 0;
    return ::mincore(static_cast<std::byte*>(base_) + at, 1, &state) == 0 && (state & 1U) != 0;
  }

 private:
  void* base_;
  std::uint64_t length_;
};

// To those who may not write the file, Linux calls every page cached.
bool may_ask(const std::string& path, const struct stat& info) {
  return ::geteuid() == info.st_uid || ::access(path.c_str(), W_OK) == 0;
}

// File systems that are memory: there is no device to read past a cache.
bool lies_in_memory(int fd) {
  struct statfs info{};
  if (::fstatfs(fd, &info) != 0) return false;
  const auto type = static_cast<std::uint64_t>(info.f_type);
  return type == TMPFS_MAGIC || type == RAMFS_MAGIC || type == HUGETLBFS_MAGIC;
}

#endif

// A page for a probe read.
class ProbePage {
 public:
  ProbePage() : page_(::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {}
  ProbePage(const ProbePage&) = delete;
  ProbePage& operator=(const ProbePage&) = delete;
  ~ProbePage() {
    if (page_ != MAP_FAILED) ::munmap(page_, kPage);
  }
  // 0, or the errno of a read of a page at the offset.
  int read(int fd, std::uint64_t offset) const {
    if (page_ == MAP_FAILED) return ENOMEM;
    return ::pread(fd, page_, kPage, static_cast<off_t>(offset)) < 0 ? errno : 0;
  }

 private:
  void* page_;
};

}  // namespace

#ifdef __APPLE__

Uncached open_uncached(const std::string& path, int /*buffered*/, const struct stat& /*info*/) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid() || ::fcntl(fd.get(), F_NOCACHE, 1) != 0) return {{}, "F_NOCACHE refused: " + text_of(errno)};
  return {std::move(fd), "F_NOCACHE"};
}

#else

Uncached open_uncached(const std::string& path, int buffered, const struct stat& info) {
#ifdef __linux__
  if (lies_in_memory(buffered)) return {{}, "the file system is memory: no device to read"};
#endif
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  if (!fd.valid()) return {{}, "O_DIRECT refused: " + text_of(errno)};
  struct stat opened{};
  if (::fstat(fd.get(), &opened) != 0 || opened.st_ino != info.st_ino || opened.st_dev != info.st_dev) {
    return {{}, "the file was replaced while it was opened"};
  }
  // Some file systems take the flag and fail the reads, others take it and drop it.
  const ProbePage page;
  if (const int error = page.read(fd.get(), 0)) return {{}, "O_DIRECT read refused: " + text_of(error)};
  const auto fills = fills_page_cache(fd.get(), buffered, path, info);
  if (fills && *fills) return {{}, "O_DIRECT is taken and dropped: probe reads came into the page cache"};
  return {std::move(fd),
          fills ? "O_DIRECT" : "O_DIRECT, taken on trust: the page cache does not show whether it works"};
}

#endif

#ifdef __linux__

std::optional<bool> fills_page_cache(int fd, int buffered, const std::string& path, const struct stat& info) {
  constexpr std::uint64_t kPlaces = 8;
  constexpr int kWitnesses = 2;  // somebody else may happen to read one of them just now
  if (!may_ask(path, info)) return std::nullopt;
  const std::uint64_t pages = static_cast<std::uint64_t>(info.st_size) / kPage;
  const ProbePage page;
  std::optional<bool> fills;
  int witnesses = 0;
  for (std::uint64_t place = std::min(pages, kPlaces); place > 0; --place) {
    const std::uint64_t offset = (pages * place / std::min(pages, kPlaces) - 1) * kPage;
    const Window window(buffered, offset, kPage);
    if (!window.valid()) return std::nullopt;
    if (window.cached(0)) {
      (void)::posix_fadvise(buffered, static_cast<off_t>(offset), static_cast<off_t>(kPage), POSIX_FADV_DONTNEED);
      if (window.cached(0)) continue;  // in use, or not yet written
    }
    if (page.read(fd, offset) != 0) return std::nullopt;
    if (!window.cached(0)) return false;
    fills = true;
    if (++witnesses == kWitnesses) break;
  }
  return fills;
}

std::optional<std::uint64_t> cached_percent(const std::string& path) {
  constexpr std::uint64_t kSamples = 64;
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info{};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0 || info.st_size == 0 || !may_ask(path, info)) return std::nullopt;
  const auto bytes = static_cast<std::uint64_t>(info.st_size);
  const Window window(fd.get(), 0, bytes);
  if (!window.valid()) return std::nullopt;
  const std::uint64_t pages = (bytes + kPage - 1) / kPage;
  const std::uint64_t samples = std::min(pages, kSamples);
  std::uint64_t cached = 0;
  for (std::uint64_t i = 0; i < samples; ++i) cached += window.cached(pages * i / samples * kPage) ? 1 : 0;
  return cached * 100 / samples;
}

#else

std::optional<bool> fills_page_cache(int /*fd*/, int /*buffered*/, const std::string& /*path*/,
                                     const struct stat& /*info*/) {
  return std::nullopt;
}

std::optional<std::uint64_t> cached_percent(const std::string& /*path*/) { return std::nullopt; }

#endif

}  // namespace edge
