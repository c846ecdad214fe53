// A wrapper that makes a fast device as slow as another one, in real time: for measuring on this machine what a phone's
// flash would do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "edge_runtime/completion_delay.h"
#include "edge_runtime/storage.h"
#include "edge_runtime/storage_simulated.h"

namespace edge {

// When reads complete, on the machine's clock: SimulatedDevice says what its figures mean. The files of one device
// share it. Bandwidth that was not used is not saved up: a burst would be faster than the device. Thread-safe.
class ThrottledDevice {
 public:
  // REQUIRES bytes_per_second > 0, latency_ns >= 0 and lanes > 0.
  explicit ThrottledDevice(SimulatedDevice::Profile profile) : device_(system_clock(), std::move(profile)) {}

  std::size_t lanes() const { return device_.lanes(); }
  // The time at which a request that arrives now completes.
  std::int64_t schedule(std::uint64_t length) {
    const std::scoped_lock lock(mutex_);
    return device_.schedule(length);
  }

 private:
  std::mutex mutex_;
  SimulatedDevice device_;
};

// Reads begin at once and complete when the device would have them, or later where the storage below is slower.
class ThrottledStorage final : public Storage {
 public:
  // REQUIRES an inner storage that calls its waker (not a simulated one).
  ThrottledStorage(std::unique_ptr<Storage> inner, std::shared_ptr<ThrottledDevice> device);
  ~ThrottledStorage() override;

  const StorageReport& report() const override { return report_; }
  std::uint64_t file_bytes() const override { return inner_->file_bytes(); }
  Result<Buffer> acquire(std::uint64_t offset, std::uint64_t length) override {
    return inner_->acquire(offset, length);
  }
  void submit(const ReadRequest& request) override;
  void poll(std::vector<Completion>& completions) override;
  void drain() override;
  void trim() override { inner_->trim(); }
  std::size_t depth() const override { return 2 * device_->lanes(); }
  void set_waker(std::function<void()> waker) override;

 private:
  std::unique_ptr<Storage> inner_;
  std::shared_ptr<ThrottledDevice> device_;
  StorageReport report_;
  std::unordered_map<std::uint64_t, std::int64_t> due_ns_;  // by tag
  CompletionDelay delay_;
};

}  // namespace edge
