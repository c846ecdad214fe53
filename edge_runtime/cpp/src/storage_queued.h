// What direct and mapped storages share: requests run elsewhere, and their completions are queued for poll.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "device.h"
#include "edge_runtime/storage.h"

namespace edge {

class QueuedStorage : public Storage {
 public:
  QueuedStorage(std::shared_ptr<Device> device, StorageReport report, std::uint64_t file_bytes);
  ~QueuedStorage() override;  // REQUIRES that the derived class has drained

  const StorageReport& report() const final { return report_; }
  std::uint64_t file_bytes() const final { return file_bytes_; }
  void submit(const ReadRequest& request) final;
  void poll(std::vector<Completion>& completions) final;
  void drain() final;
  // Twice the lanes: a lane that finishes finds the next request waiting.
  std::size_t depth() const override { return 2 * device_->pool().lanes(); }
  void set_waker(std::function<void()> waker) final { waker_ = std::move(waker); }

 protected:
  Device& device() const { return *device_; }
  // Has read() run on a thread of the device's pool.
  void read_on_pool(const ReadRequest& request);
  // Whether drain() has called off what has not begun. Any thread.
  bool dropped();
  // Ends a request. Any thread; the last use of the storage there.
  void finish(std::uint64_t tag, Status status);

  // Takes a request on its way: to read_on_pool, or where else finish() is called. Must not wait.
  virtual void begin(const ReadRequest& request) { read_on_pool(request); }
  // Reads and waits. On a pool thread, several at once.
  virtual Status read(const ReadRequest& request) = 0;

 private:
  std::shared_ptr<Device> device_;
  StorageReport report_;
  std::uint64_t file_bytes_;
  std::function<void()> waker_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::vector<Completion> completed_;
  std::size_t under_way_ = 0;
  bool draining_ = false;
};

}  // namespace edge
