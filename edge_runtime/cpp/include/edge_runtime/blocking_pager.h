// The thread-safe shell around a Pager: one thread of its own takes completions and verifies layers, and callers that
// wait help to verify.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "edge_runtime/lease_registry.h"
#include "edge_runtime/pager.h"
#include "edge_runtime/result.h"
#include "edge_runtime/tiers.h"

namespace edge {

class BlockingPager;
class IoRing;

// Blocks in memory, kept there as long as the lease lives. Made by BlockingPager::fetch; keeps its pager alive.
// Thread-safe. It is in the lease registry from fetch to cancel, replacement or destruction.
class Lease final : public MemorySource {
 public:
  Lease(std::shared_ptr<BlockingPager> pager, LeaseId id, std::uint64_t bytes_read);
  // Ends the lease. Whoever still computes with its bytes holds a shared_ptr to it, so that they cannot go away under
  // him.
  ~Lease() override;

  // Blocks until the layer has arrived and is verified; until all have. An error of a block, as Pager::ready gives it;
  // kCancelled once the lease is cancelled or replaced; kInvalidArgument: no such layer.
  Status wait(std::uint64_t layer);
  Status wait();
  // As wait(layer). kUnsupported where the bank is not of the kind `ffn`.
  Status layer(std::uint32_t layer, std::vector<MemoryRows>& rows) override;

  // Ends all waits, of other threads too, with kCancelled and takes the handle back. Destruction frees the blocks.
  void cancel();

  // Waits for all layers.
  Result<std::vector<LeasedBlock>> blocks();

  std::int64_t handle() const { return handle_; }
  std::uint32_t layers() const override;
  std::uint32_t d_model() const override;
  std::uint64_t bytes_read() const { return bytes_read_; }  // that this fetch caused to be read
  // From fetch to the last verified byte; nullopt until then.
  std::optional<std::int64_t> fetch_ns() const;
  // That threads have spent waiting for this lease's layers, added up: what of the fetch no computation has hidden.
  std::int64_t stall_ns() const;

 private:
  friend class BlockingPager;

  std::shared_ptr<BlockingPager> pager_;
  LeaseId id_;
  std::uint64_t bytes_read_;
  std::int64_t handle_ = 0;
  // Under the pager's mutex:
  bool cancelled_ = false;
  std::int64_t stall_ns_ = 0;
  std::optional<std::int64_t> fetch_ns_;  // kept when the lease is replaced
};

struct BlockingPagerStats {
  PagerStats pager;
  std::int64_t stall_ns = 0;        // that threads have spent waiting for layers, added up
  LatencySummary stall_latency_ns;  // of the waits that were not over at once
};

// Thread-safe.
class BlockingPager : public std::enable_shared_from_this<BlockingPager> {
 public:
  // REQUIRES storages that call their waker (not simulated ones).
  static Result<std::shared_ptr<BlockingPager>> open(std::vector<PagedLevel> levels, const PagerOptions& options);
  // The levels' files, each list the base first and overlays after it. `device` is what each device gets that files lie
  // on; without memory of its own, blocks that are freed leave theirs to the next ones, within the budget.
  static Result<std::shared_ptr<BlockingPager>> open(const std::vector<std::vector<std::string>>& paths,
                                                     const Tiers& tiers, const PagerOptions& options,
                                                     DeviceOptions device = {});
  BlockingPager(const BlockingPager&) = delete;
  BlockingPager& operator=(const BlockingPager&) = delete;
  ~BlockingPager();

  // As Pager::fetch: returns at once, the lease waits. On success `replacing` is cancelled. kBusy also where somebody
  // but the caller holds `replacing`: its bytes may be in use.
  Result<std::shared_ptr<Lease>> fetch(std::span<const Node> nodes, const std::shared_ptr<Lease>& replacing = nullptr);
  Result<std::uint64_t> prefetch(std::span<const Node> nodes);  // as Pager::prefetch
  std::uint64_t shrink(std::uint64_t bytes);                    // as Pager::shrink
  BlockingPagerStats stats() const;
  std::vector<StorageReport> storage_reports() const;
  std::uint64_t layers() const { return pager_->layers(); }
  std::uint32_t d_model() const { return pager_->d_model(); }

 private:
  friend class Lease;

  // `ring`: what reads of the pager's storages go through and this pager drives; null where there is none such.
  BlockingPager(std::unique_ptr<Pager> pager, std::shared_ptr<Ring> ring);
  static Result<std::shared_ptr<BlockingPager>> open(std::vector<PagedLevel> levels, const PagerOptions& options,
                                                     std::shared_ptr<Ring> ring);
  void run();
  void wake();
  void sleep();  // until wake(), or until the ring has completed something
  // Waits until the layer, or with nullopt every layer, is ready. REQUIRES the lock on mutex_.
  Status wait(std::unique_lock<std::mutex>& lock, Lease& lease, std::optional<std::uint64_t> layer);
  // Verifies one layer without the lock, on the thread that calls; false where none has arrived. REQUIRES the lock on
  // mutex_.
  bool verify_one(std::unique_lock<std::mutex>& lock);
  void cancel(Lease& lease);  // REQUIRES the lock on mutex_

  mutable std::mutex mutex_;
  std::condition_variable progress_;  // something has arrived, failed or been cancelled
  std::int64_t stall_ns_ = 0;
  Histogram stall_latency_ns_;

  const std::shared_ptr<Ring> ring_;
  IoRing* const driven_;  // of ring_; null where no storage reads through it: then wake_ is what the thread sleeps on
  std::mutex wake_mutex_;
  std::condition_variable wake_;
  bool woken_ = false;
  // Under mutex_: the thread is in the pager, if without the lock for a while; the pager is being closed, so that the
  // thread drives its ring on but leaves the pager alone.
  bool polling_ = false;
  bool closing_ = false;
  std::atomic<bool> stopping_ = false;

  std::unique_ptr<Pager> pager_;
  std::thread thread_;
};

}  // namespace edge
