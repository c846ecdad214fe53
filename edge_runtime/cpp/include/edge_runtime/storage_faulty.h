// A wrapper that breaks reads on purpose: what a worn device does, at offsets of the test's choosing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "edge_runtime/storage.h"

namespace edge {

enum class FaultKind : std::uint8_t {
  kIoError,    // the read fails as with EIO
  kShortRead,  // the read fails as with a file that ends at the offset
  kBitFlip,    // the read succeeds; the lowest bit of the byte at the offset is inverted
};

struct Fault {
  std::uint64_t offset = 0;  // in the file: the fault strikes reads that cover this byte
  FaultKind kind = FaultKind::kIoError;
  unsigned times = 1;  // how many such reads it strikes; then it is spent
};

class FaultyStorage final : public Storage {
 public:
  // REQUIRES that `inner` copies into memory of its own: not a mapped storage, whose pages cannot be written.
  FaultyStorage(std::unique_ptr<Storage> inner, std::vector<Fault> faults);
  ~FaultyStorage() override;

  // Thread-safe.
  void add(Fault fault);

  const StorageReport& report() const override { return inner_->report(); }
  std::uint64_t file_bytes() const override { return inner_->file_bytes(); }
  Result<Buffer> acquire(std::uint64_t offset, std::uint64_t length) override {
    return inner_->acquire(offset, length);
  }
  void submit(const ReadRequest& request) override;
  void poll(std::vector<Completion>& completions) override;
  void drain() override;
  std::size_t depth() const override { return inner_->depth(); }
  void set_waker(std::function<void()> waker) override { inner_->set_waker(std::move(waker)); }

 private:
  void strike(const ReadRequest& request, Completion& completion);

  std::unique_ptr<Storage> inner_;
  std::mutex mutex_;
  std::vector<Fault> faults_;
  std::unordered_map<std::uint64_t, ReadRequest> under_way_;  // by tag
};

}  // namespace edge
