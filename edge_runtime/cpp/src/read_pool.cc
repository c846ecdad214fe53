#include "read_pool.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace edge {

ReadPool::ReadPool(unsigned lanes) {
  threads_.reserve(lanes);
  for (unsigned lane = 0; lane < lanes; ++lane) threads_.emplace_back([this] { work(); });
}

ReadPool::~ReadPool() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ReadPool::run(std::function<void()> job) {
  {
    const std::scoped_lock lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  ready_.notify_one();
}

void ReadPool::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    ready_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    lock.lock();
  }
}

std::shared_ptr<ReadPool> make_read_pool(unsigned lanes) { return std::make_shared<ReadPool>(std::max(lanes, 1U)); }

PooledStorage::PooledStorage(std::shared_ptr<ReadPool> pool, StorageReport report, std::uint64_t file_bytes)
    : pool_(std::move(pool)), report_(std::move(report)), file_bytes_(file_bytes) {}

PooledStorage::~PooledStorage() = default;

void PooledStorage::submit(const ReadRequest& request) {
  {
    const std::scoped_lock lock(mutex_);
    ++under_way_;
  }
  pool_->run([this, request] {
    bool dropped = false;
    {
      const std::scoped_lock lock(mutex_);
      dropped = draining_;
    }
    Status status;
    if (!dropped) status = read(request);
    const std::scoped_lock lock(mutex_);
    if (!draining_) {
      completed_.push_back({request.tag, std::move(status)});
      if (waker_) waker_();
    }
    // Under the lock: once drain() has seen zero, the storage may be gone.
    if (--under_way_ == 0) idle_.notify_all();
  });
}

void PooledStorage::poll(std::vector<Completion>& completions) {
  const std::scoped_lock lock(mutex_);
  std::move(completed_.begin(), completed_.end(), std::back_inserter(completions));
  completed_.clear();
}

void PooledStorage::drain() {
  std::unique_lock lock(mutex_);
  draining_ = true;
  idle_.wait(lock, [this] { return under_way_ == 0; });
  draining_ = false;
  completed_.clear();
}

tl::unexpected<Error> system_error(const std::string& path, const std::string& what, int error) {
  return fail(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
              path + ": " + what + ": " + std::generic_category().message(error));
}

}  // namespace edge
