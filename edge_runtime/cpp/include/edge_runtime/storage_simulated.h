// A storage on a clock of its own: a file in memory behind a device with a latency, a bandwidth and lanes. The pager
// over it is the real one, so that tests and the simulator measure the very code that runs on a device.
// Single-threaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "edge_runtime/clock.h"
#include "edge_runtime/storage.h"

namespace edge {

// When requests complete. Storages of one device share it.
// `lanes` requests wait out their latency at once; their transfers share the bandwidth one after another.
class SimulatedDevice {
 public:
  struct Latency {
    std::uint64_t bytes = 0;  // of a request
    std::int64_t latency_ns = 0;
  };
  struct Profile {
    std::int64_t latency_ns = 100'000;
    double bytes_per_second = 2e9;
    std::size_t lanes = kDefaultLanes;
    // Where it is not empty, in place of latency_ns: a device whose latency grows with the request. Lines between the
    // points, the last of which holds for everything above it, as the first does below.
    std::vector<Latency> by_size = {};
  };

  // REQUIRES that the clock outlives the device, bytes_per_second > 0, lanes > 0, and by_size with ascending bytes.
  SimulatedDevice(const Clock& clock, Profile profile);

  std::int64_t now_ns() const { return clock_.now_ns(); }
  std::size_t lanes() const { return lane_free_ns_.size(); }
  // Requests from now on take `factor` times as long. REQUIRES factor > 0.
  void slow_down(double factor) { factor_ = factor; }
  // The time at which a request that arrives now completes.
  std::int64_t schedule(std::uint64_t length);

 private:
  double latency_ns(std::uint64_t length) const;

  const Clock& clock_;
  Profile profile_;
  std::vector<std::int64_t> lane_free_ns_;
  std::int64_t link_free_ns_ = 0;
  double factor_ = 1;
};

class SimulatedStorage final : public Storage {
 public:
  SimulatedStorage(std::string path, std::vector<std::byte> file, std::shared_ptr<SimulatedDevice> device);
  // A file of which only the length counts: its reads take their time and move nothing, and blocks take address space
  // in place of memory. REQUIRES that nobody looks into a block, which a verdict reached by LayerCheck::run() would.
  SimulatedStorage(std::string path, std::uint64_t file_bytes, std::shared_ptr<SimulatedDevice> device);

  const StorageReport& report() const override { return report_; }
  std::uint64_t file_bytes() const override { return file_bytes_; }
  Result<Buffer> acquire(std::uint64_t offset, std::uint64_t length) override;
  void submit(const ReadRequest& request) override;
  void poll(std::vector<Completion>& completions) override;
  void drain() override { pending_.clear(); }
  std::size_t depth() const override { return 2 * device_->lanes(); }
  void set_waker(std::function<void()> /*waker*/) override {}

  // When poll will next have something; nullopt when no request is under way.
  std::optional<std::int64_t> next_completion_ns() const;

 private:
  struct Pending {
    ReadRequest request;
    std::int64_t due_ns;
  };

  StorageReport report_;
  std::vector<std::byte> file_;  // empty where only the length counts
  std::uint64_t file_bytes_;
  std::shared_ptr<SimulatedDevice> device_;
  std::vector<Pending> pending_;
};

}  // namespace edge
