// Threads that each take the next chunk: the caller is one of them, so that a depth of 1 wakes nobody.
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

#include "raw_reader.h"

namespace edge::bench {
namespace {

class PreadReader final : public ChunkReader {
 public:
  PreadReader(const std::vector<int>& descriptors, unsigned depth) : descriptors_(descriptors) {
    for (unsigned i = 1; i < depth; ++i) threads_.emplace_back([this] { serve(); });
  }
  PreadReader(const PreadReader&) = delete;
  PreadReader& operator=(const PreadReader&) = delete;

  ~PreadReader() override {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    begin_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  Status read(std::span<const Chunk> chunks) override {
    {
      const std::scoped_lock lock(mutex_);
      chunks_ = chunks;
      next_ = 0;
      error_ = 0;
      busy_ = threads_.size();
      ++round_;
    }
    begin_.notify_all();
    take_chunks();
    std::unique_lock lock(mutex_);
    end_.wait(lock, [this] { return busy_ == 0; });
    if (error_ == 0) return {};
    return fail(ErrorCode::kIo, "pread: " + (error_ < 0 ? std::string("the file ended")
                                                        : std::generic_category().message(error_.load())));
  }

 private:
  void serve() {
    std::uint64_t served = 0;
    std::unique_lock lock(mutex_);
    while (true) {
      begin_.wait(lock, [&] { return stopping_ || round_ != served; });
      if (stopping_) return;
      served = round_;
      lock.unlock();
      take_chunks();
      lock.lock();
      if (--busy_ == 0) end_.notify_one();
    }
  }

  void take_chunks() {
    for (std::size_t i = next_++; i < chunks_.size() && error_ == 0; i = next_++) {
      const Chunk& chunk = chunks_[i];
      std::uint64_t done = 0;
      while (done < chunk.length) {
        const ssize_t got = ::pread(descriptors_[chunk.file], chunk.destination + done, chunk.length - done,
                                    static_cast<off_t>(chunk.offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
          error_ = got < 0 ? errno : -1;
          return;
        }
        done += static_cast<std::uint64_t>(got);
      }
    }
  }

  const std::vector<int>& descriptors_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable begin_;
  std::condition_variable end_;
  bool stopping_ = false;
  std::uint64_t round_ = 0;
  std::size_t busy_ = 0;
  std::span<const Chunk> chunks_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<int> error_ = 0;  // errno, -1 at the end of the file
};

}  // namespace

std::unique_ptr<ChunkReader> make_pread_reader(const std::vector<int>& descriptors, unsigned depth) {
  return std::make_unique<PreadReader>(descriptors, depth);
}

}  // namespace edge::bench
