// What tests of kernels hold their inputs in and compare with.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

namespace edge::kernels {

// Memory that ends where a page without access begins, so that a read or write beyond it is a crash.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) : page_(static_cast<std::size_t>(::sysconf(_SC_PAGESIZE))) {
    mapped_ = (bytes + page_ - 1) / page_ * page_ + page_;
    base_ =
        static_cast<std::byte*>(::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ::mprotect(base_ + mapped_ - page_, page_, PROT_NONE);
    data_ = base_ + mapped_ - page_ - bytes;
  }
  template <typename T>
  explicit Guarded(const std::vector<T>& from) : Guarded(from.size() * sizeof(T)) {
    if (!from.empty()) std::memcpy(data_, from.data(), from.size() * sizeof(T));
  }
  ~Guarded() { ::munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  std::byte* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  std::size_t page_;
  std::size_t mapped_ = 0;
  std::byte* base_ = nullptr;
  std::byte* data_ = nullptr;
};

// Equal in kind where it is no number, else within `bound`.
inline void expect_close(float value, float expected, double bound, const std::string& where) {
  if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(value)) << where << ": " << value;
  } else if (std::isinf(expected)) {
    EXPECT_EQ(value, expected) << where;
  } else {
    EXPECT_LE(std::fabs(static_cast<double>(value) - expected), bound) << where << ": " << value << " " << expected;
  }
}

}  // namespace edge::kernels
