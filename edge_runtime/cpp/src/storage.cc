#include "edge_runtime/storage.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "edge_runtime/dtype.h"
#include "file_descriptor.h"

namespace edge {

namespace {

constexpr std::array<std::string_view, 3> kNames = {"auto", "direct", "mapped"};

#ifdef __linux__
constexpr std::uint64_t kSamples = 64;
constexpr std::uint64_t kWarmPercent = 90;

// The share of sampled pages that the page cache holds, in percent; nullopt where the system does not say.
std::optional<std::uint64_t> cached_percent(const std::string& path) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info{};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0 || info.st_size == 0) return std::nullopt;
  // To those who may not write the file, Linux calls every page resident.
  if (::geteuid() != info.st_uid && ::access(path.c_str(), W_OK) != 0) return std::nullopt;
  const auto bytes = static_cast<std::uint64_t>(info.st_size);
  void* const base = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) return std::nullopt;
  const std::uint64_t pages = (bytes + kPage - 1) / kPage;
  const std::uint64_t samples = std::min(pages, kSamples);
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::uint64_t resident = 0;
  for (std::uint64_t i = 0; i < samples; ++i) {
    unsigned char state = 0;
    std::byte* const address = static_cast<std::byte*>(base) + pages * i / samples * kPage;
    if (::mincore(address, page, &state) == 0 && (state & 1U) != 0) ++resident;
  }
  ::munmap(base, bytes);
  return resident * 100 / samples;
}
#endif

Result<std::unique_ptr<Storage>> open_auto(const std::string& path, std::shared_ptr<ReadPool> pool) {
#ifdef __APPLE__
  return open_mapped(path, std::move(pool), "auto: clean mapped pages are not charged to the process");
#else
  std::string why = "auto: not in the page cache";
#ifdef __linux__
  if (const auto percent = cached_percent(path)) {
    const std::string cached = std::to_string(*percent) + "% of the file is in the page cache";
    if (*percent >= kWarmPercent) return open_mapped(path, std::move(pool), "auto: " + cached);
    why = "auto: only " + cached;
  }
#endif
  auto direct = open_direct(path, pool, why);
  if (!direct || (*direct)->report().backend == "direct") return direct;
  // Buffered reads would fill the page cache first and copy from there: mapping spares the copy.
  return open_mapped(path, std::move(pool), (*direct)->report().reason);
#endif
}

}  // namespace

std::string_view name(StorageKind kind) { return kNames[static_cast<std::size_t>(kind)]; }

std::optional<StorageKind> parse_storage_kind(std::string_view text) {
  const auto* const found = std::find(kNames.begin(), kNames.end(), text);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<StorageKind>(found - kNames.begin());
}

Result<std::unique_ptr<Storage>> open_storage(const std::string& path, StorageKind kind,
                                              std::shared_ptr<ReadPool> pool) {
  switch (kind) {
    case StorageKind::kDirect:
      return open_direct(path, std::move(pool));
    case StorageKind::kMapped:
      return open_mapped(path, std::move(pool));
    case StorageKind::kAuto:
      return open_auto(path, std::move(pool));
  }
  return fail(ErrorCode::kInvalidArgument, path + ": no such storage kind");
}

}  // namespace edge
