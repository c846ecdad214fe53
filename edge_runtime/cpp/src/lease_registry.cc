#include "edge_runtime/lease_registry.h"

#include <mutex>
#include <string>

namespace edge {

namespace {

struct Slot {
  std::weak_ptr<MemorySource> source;
  std::uint32_t generation = 0;  // of the handle last given out for it
  bool taken = false;
};

struct Registry {
  std::mutex mutex;
  std::vector<Slot> slots;
  std::vector<std::uint32_t> free;

  // The slot that a handle names, nullptr where it is not, or no longer, one of ours. REQUIRES the mutex.
  Slot* find(std::int64_t handle) {
    const auto bits = static_cast<std::uint64_t>(handle);
    const auto index = static_cast<std::uint32_t>(bits);
    if (index >= slots.size()) return nullptr;
    Slot& slot = slots[index];
    return slot.taken && slot.generation == bits >> 32 ? &slot : nullptr;
  }
};

Registry& registry() {
  static Registry instance;
  return instance;
}

constexpr std::uint32_t kLastGeneration = 0x7fffffff;  // handles stay positive

}  // namespace

std::int64_t register_source(const std::shared_ptr<MemorySource>& source) {
  Registry& all = registry();
  const std::scoped_lock lock(all.mutex);
  if (all.free.empty()) {
    all.free.push_back(static_cast<std::uint32_t>(all.slots.size()));
    all.slots.emplace_back();
  }
  const std::uint32_t index = all.free.back();
  all.free.pop_back();
  Slot& slot = all.slots[index];
  // From 1: no handle is 0.
  slot = {source, slot.generation == kLastGeneration ? 1 : slot.generation + 1, true};
  return static_cast<std::int64_t>(std::uint64_t{slot.generation} << 32 | index);
}

void unregister_source(std::int64_t handle) {
  Registry& all = registry();
  const std::scoped_lock lock(all.mutex);
  Slot* const slot = all.find(handle);
  if (slot == nullptr) return;
  slot->source.reset();
  slot->taken = false;
  all.free.push_back(static_cast<std::uint32_t>(handle));
}

Result<std::shared_ptr<MemorySource>> find_source(std::int64_t handle) {
  Registry& all = registry();
  std::shared_ptr<MemorySource> source;
  {
    const std::scoped_lock lock(all.mutex);
    if (const Slot* const slot = all.find(handle)) source = slot->source.lock();
  }
  if (source == nullptr) {
    return fail(ErrorCode::kStaleHandle, "memory handle " + std::to_string(handle) +
                                             " names no open lease: it was released, or never given out");
  }
  return source;
}

}  // namespace edge
