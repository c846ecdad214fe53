#include "edge_runtime/tiers.h"

#include <sys/stat.h>

#include <optional>
#include <utility>

namespace edge {

namespace {

// One Device for each of the system's, so that a slow one does not hold up the reads of a fast one.
class Devices {
 public:
  explicit Devices(const DeviceOptions& options) : options_(options) {}

  std::shared_ptr<Device> of(const std::string& path) {
    struct stat info{};
    // Where it fails, so does the opening that follows, with a better message.
    const std::uint64_t number = ::stat(path.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_dev) : 0;
    std::shared_ptr<Device>& device = devices_[number];
    if (device == nullptr) device = make_device(options_);
    return device;
  }

 private:
  const DeviceOptions& options_;
  std::map<std::uint64_t, std::shared_ptr<Device>> devices_;
};

Result<LevelFile> open_file(const std::string& path, const Tiers& tiers, Devices& devices) {
  auto bank = BankLevel::open(path);
  if (!bank) return tl::make_unexpected(std::move(bank.error()));
  const auto named = tiers.levels.find(bank->spec().level);
  const Tier& tier = named == tiers.levels.end() ? tiers.others : named->second;
  auto storage = open_storage(path, tier.kind, devices.of(path));
  if (!storage) return tl::make_unexpected(std::move(storage.error()));
  if ((*storage)->file_bytes() != bank->file_bytes()) {
    return fail(ErrorCode::kTruncated, path + ": changed its size while it was opened; open it again");
  }
  if (tier.throttle != nullptr) storage = std::make_unique<ThrottledStorage>(std::move(*storage), tier.throttle);
  return LevelFile{std::move(*bank), std::move(*storage)};
}

}  // namespace

Result<std::vector<PagedLevel>> open_levels(const std::vector<std::vector<std::string>>& paths, const Tiers& tiers,
                                            const DeviceOptions& device) {
  Devices devices(device);
  std::vector<PagedLevel> levels;
  std::map<std::uint32_t, Tier> unused = tiers.levels;
  for (const std::vector<std::string>& files : paths) {
    PagedLevel level;
    for (const std::string& path : files) {
      auto file = open_file(path, tiers, devices);
      if (!file) return tl::make_unexpected(std::move(file.error()));
      unused.erase(file->bank.spec().level);
      level.push_back(std::move(*file));
    }
    levels.push_back(std::move(level));
  }
  if (!unused.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "storage for level " + std::to_string(unused.begin()->first) + ": the bank has no such level");
  }
  return levels;
}

}  // namespace edge
