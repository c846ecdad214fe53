// Files of random bytes, and a reader that waits for a storage.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "edge_runtime/dtype.h"
#include "edge_runtime/storage.h"

namespace edge::testing {

inline constexpr std::uint64_t kPages = 40;
inline constexpr std::uint64_t kFileBytes = kPages * kPage + 100;  // the tables behind the blocks end anywhere

inline std::vector<std::byte> random_bytes(std::uint64_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

inline void write_bytes(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// Polls until `count` requests have completed, woken by the storage.
class Reader {
 public:
  explicit Reader(Storage& storage) : storage_(storage) {
    storage.set_waker([this] {
      const std::scoped_lock lock(mutex_);
      woken_ = true;
      wake_.notify_one();
    });
  }

  std::map<std::uint64_t, Status> completions(std::size_t count) {
    std::map<std::uint64_t, Status> all;
    std::vector<Completion> some;
    while (all.size() < count) {
      std::unique_lock lock(mutex_);
      if (!wake_.wait_for(lock, std::chrono::seconds(30), [this] { return woken_; })) {
        ADD_FAILURE() << "the storage did not wake its reader";
        return all;
      }
      woken_ = false;
      lock.unlock();
      some.clear();
      storage_.poll(some);
      for (const Completion& completion : some) {
        EXPECT_TRUE(all.emplace(completion.tag, completion.status).second) << "twice: " << completion.tag;
      }
    }
    return all;
  }

  // Reads [offset, offset + length) into the buffer of the whole file.
  Status read(std::uint64_t offset, std::uint64_t length, std::byte* file, bool again = false) {
    storage_.submit({.offset = offset, .length = length, .destination = file + offset, .tag = 7, .again = again});
    return completions(1)[7];
  }

 private:
  Storage& storage_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false;
};

// On the device, and not in the page cache as far as that can be had.
inline void make_cold(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::fsync(fd), 0);
#ifdef POSIX_FADV_DONTNEED
  ASSERT_EQ(::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
#endif
  ::close(fd);
}

}  // namespace edge::testing
