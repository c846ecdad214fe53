// A wrapper that breaks reads on purpose: what a worn device does, at offsets of the test's choosing. It covers what is
// read through a storage: blocks, whole. Headers and tables are read before there is a storage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "edge_runtime/clock.h"
#include "edge_runtime/completion_delay.h"
#include "edge_runtime/storage.h"

namespace edge {

enum class FaultKind : std::uint8_t {
  kIoError,    // the read fails as with EIO
  kShortRead,  // the read fails as with a file that ends at the offset
  kBitFlip,    // the read succeeds; the lowest bit of the byte at the offset is inverted
  kDelay,      // the read completes delay_ns after it would have
};

struct Fault {
  std::uint64_t offset = 0;  // in the file: the fault strikes reads that cover this byte
  FaultKind kind = FaultKind::kIoError;
  unsigned times = 1;  // how many such reads it strikes; then it is spent
  std::int64_t delay_ns = 0;
};

class FaultyStorage final : public Storage {
 public:
  // REQUIRES that `inner` copies into memory of its own: not a mapped storage, whose pages cannot be written.
  // The clock is that of a simulated `inner`, and outlives the storage.
  FaultyStorage(std::unique_ptr<Storage> inner, std::vector<Fault> faults, const Clock& clock = system_clock());
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
  void trim() override { inner_->trim(); }
  std::size_t depth() const override { return inner_->depth(); }
  void set_waker(std::function<void()> waker) override;

  // When poll will next have a delayed completion; nullopt when none is held back.
  std::optional<std::int64_t> next_completion_ns() const { return delay_.next_due_ns(); }

 private:
  // Returns the delay in nanoseconds.
  std::int64_t strike(const ReadRequest& request, Completion& completion);

  std::unique_ptr<Storage> inner_;
  std::mutex mutex_;
  std::vector<Fault> faults_;
  std::unordered_map<std::uint64_t, ReadRequest> under_way_;  // by tag
  const Clock& clock_;
  CompletionDelay delay_;
};

}  // namespace edge
