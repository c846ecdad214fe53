// A few threads that run blocking reads in the order they were asked for.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace edge {

// Thread-safe.
class ReadPool {
 public:
  explicit ReadPool(unsigned lanes) : lanes_(lanes) {}
  ReadPool(const ReadPool&) = delete;
  ReadPool& operator=(const ReadPool&) = delete;
  ~ReadPool();  // runs what is queued, then joins

  void run(std::function<void()> job);
  std::size_t lanes() const { return lanes_; }

 private:
  void work();

  const std::size_t lanes_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> jobs_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;  // started as jobs find none idle: most pools beside a ring never need one
};

}  // namespace edge
