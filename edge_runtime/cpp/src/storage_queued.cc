#include "storage_queued.h"

#include <iterator>
#include <utility>

namespace edge {

QueuedStorage::QueuedStorage(std::shared_ptr<Device> device, StorageReport report, std::uint64_t file_bytes)
    : device_(std::move(device)), report_(std::move(report)), file_bytes_(file_bytes) {}

QueuedStorage::~QueuedStorage() = default;

void QueuedStorage::submit(const ReadRequest& request) {
  {
    const std::scoped_lock lock(mutex_);
    ++under_way_;
  }
  begin(request);
}

void QueuedStorage::read_on_pool(const ReadRequest& request) {
  device_->pool().run([this, request] { finish(request.tag, dropped() ? Status{} : read(request)); });
}

bool QueuedStorage::dropped() {
  const std::scoped_lock lock(mutex_);
  return draining_;
}

void QueuedStorage::finish(std::uint64_t tag, Status status) {
  const std::scoped_lock lock(mutex_);
  if (!draining_) {
    completed_.push_back({tag, std::move(status)});
    if (waker_) waker_();
  }
  // Under the lock: once drain() has seen zero, the storage may be gone.
  if (--under_way_ == 0) idle_.notify_all();
}

void QueuedStorage::poll(std::vector<Completion>& completions) {
  const std::scoped_lock lock(mutex_);
  std::move(completed_.begin(), completed_.end(), std::back_inserter(completions));
  completed_.clear();
}

void QueuedStorage::drain() {
  std::unique_lock lock(mutex_);
  draining_ = true;
  idle_.wait(lock, [this] { return under_way_ == 0; });
  draining_ = false;
  completed_.clear();
}

}  // namespace edge
