// Which storage reads which level: levels may lie on devices of different speed, and be read each in its own way.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "edge_runtime/pager.h"
#include "edge_runtime/result.h"
#include "edge_runtime/storage.h"
#include "edge_runtime/storage_throttled.h"

namespace edge {

struct Tier {
  StorageKind kind = StorageKind::kAuto;
  // Slows the level down to the figures of another device; levels that lie on that device share it. For measurements.
  std::shared_ptr<ThrottledDevice> throttle = nullptr;
};

struct Tiers {
  Tiers() = default;
  // One kind for all levels. Not explicit: it is what most callers want to say.
  Tiers(StorageKind kind) : others{.kind = kind} {}  // NOLINT(google-explicit-constructor)

  std::map<std::uint32_t, Tier> levels = {};  // by number, as the level's file has it
  Tier others = {};                           // levels that are not named
};

// Opens the files of each level, the base first and overlays after it. Files of one device share its ring or threads.
// `device` is what each device gets. kInvalidArgument: a tier for a level that is not there; kTruncated: a file changed
// its size meanwhile.
Result<std::vector<PagedLevel>> open_levels(const std::vector<std::vector<std::string>>& paths, const Tiers& tiers,
                                            const DeviceOptions& device = {});

}  // namespace edge
