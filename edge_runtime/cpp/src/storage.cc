#include "edge_runtime/storage.h"

#include <algorithm>
#include <array>
#include <utility>

#include "direct_probe.h"

namespace edge {

namespace {

constexpr std::array<std::string_view, 4> kNames = {"auto", "direct", "mapped", "uring"};

Result<std::unique_ptr<Storage>> open_auto(const std::string& path, std::shared_ptr<Device> device) {
#ifdef __APPLE__
  return open_mapped(path, std::move(device), "auto: clean mapped pages are not charged to the process");
#else
  constexpr std::uint64_t kWarmPercent = 90;
  std::string why = "auto: not in the page cache, as far as the system says";
  if (const auto percent = cached_percent(path)) {
    const std::string cached = std::to_string(*percent) + "% of the file is in the page cache";
    if (*percent >= kWarmPercent) return open_mapped(path, std::move(device), "auto: " + cached);
    why = "auto: only " + cached;
  }
  auto direct = open_direct(path, device, why);
  if (!direct || (*direct)->report().backend != "buffered/pool") return direct;
  // Buffered reads would fill the page cache first and copy from there: mapping spares the copy.
  return open_mapped(path, std::move(device), (*direct)->report().reason);
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
                                              std::shared_ptr<Device> device) {
  switch (kind) {
    case StorageKind::kAuto:
      return open_auto(path, std::move(device));
    case StorageKind::kMapped:
      return open_mapped(path, std::move(device));
    case StorageKind::kDirect:
    case StorageKind::kUring:
      return open_direct(path, std::move(device), "asked for", kind);
  }
  return fail(ErrorCode::kInvalidArgument, path + ": no such storage kind");
}

}  // namespace edge
