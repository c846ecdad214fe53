// A storage whose reads seem to take as long as a test wants.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "edge_runtime/storage.h"

namespace edge::testing {

// Hides completions until it is opened: a device that takes its time.
class GatedStorage final : public Storage {
 public:
  GatedStorage(std::unique_ptr<Storage> inner, std::shared_ptr<std::atomic<bool>> open)
      : inner_(std::move(inner)), open_(std::move(open)) {}
  const StorageReport& report() const override { return inner_->report(); }
  std::uint64_t file_bytes() const override { return inner_->file_bytes(); }
  Result<Buffer> acquire(std::uint64_t offset, std::uint64_t length) override {
    return inner_->acquire(offset, length);
  }
  void submit(const ReadRequest& request) override { inner_->submit(request); }
  void poll(std::vector<Completion>& completions) override {
    if (*open_) inner_->poll(completions);
  }
  void drain() override { inner_->drain(); }
  std::size_t depth() const override { return inner_->depth(); }
  void set_waker(std::function<void()> waker) override {
    waker_ = waker;
    inner_->set_waker(std::move(waker));
  }
  void wake() const { waker_(); }

 private:
  std::unique_ptr<Storage> inner_;
  std::shared_ptr<std::atomic<bool>> open_;
  std::function<void()> waker_;
};

}  // namespace edge::testing
