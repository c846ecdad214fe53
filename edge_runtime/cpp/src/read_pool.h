// A few threads that run blocking reads in the order they were asked for.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "edge_runtime/storage.h"

namespace edge {

class ReadPool {
 public:
  explicit ReadPool(unsigned lanes);
  ReadPool(const ReadPool&) = delete;
  ReadPool& operator=(const ReadPool&) = delete;
  ~ReadPool();  // runs what is queued, then joins

  void run(std::function<void()> job);
  std::size_t lanes() const { return threads_.size(); }

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// What direct and mapped storages share: requests run on the pool and their completions are queued for poll.
class PooledStorage : public Storage {
 public:
  PooledStorage(std::shared_ptr<ReadPool> pool, StorageReport report, std::uint64_t file_bytes);
  ~PooledStorage() override;

  const StorageReport& report() const final { return report_; }
  std::uint64_t file_bytes() const final { return file_bytes_; }
  void submit(const ReadRequest& request) final;
  void poll(std::vector<Completion>& completions) final;
  void drain() final;
  // Twice the lanes: a lane that finishes finds the next request waiting.
  std::size_t depth() const final { return 2 * pool_->lanes(); }
  void set_waker(std::function<void()> waker) final { waker_ = std::move(waker); }

 protected:
  // Runs on a pool thread, several at once.
  virtual Status read(const ReadRequest& request) = 0;

 private:
  std::shared_ptr<ReadPool> pool_;
  StorageReport report_;
  std::uint64_t file_bytes_;
  std::function<void()> waker_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::vector<Completion> completed_;
  std::size_t under_way_ = 0;
  bool draining_ = false;
};

// "path: what: the system's text for errno"
tl::unexpected<Error> system_error(const std::string& path, const std::string& what, int error);

}  // namespace edge
