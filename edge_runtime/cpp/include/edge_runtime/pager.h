// Brings blocks of a bank into memory under a hard budget.
//
// A state machine without threads: fetch() plans and submits reads, poll() takes completions and verifies, and nothing
// waits. Time comes from a Clock, completions from the storages, so tests and the simulator drive the very code that
// serves a device. BlockingPager (blocking_pager.h) is the thread-safe shell around it.
//
// Invariants, after every call:
//  - resident_bytes + in_flight_bytes <= budget; a block counts its whole stride from the moment it has memory.
//  - A block that a lease uses is neither evicted nor moved.
//  - Bytes of a layer are shown only after that layer has arrived and, unless verification is off, equals its checksum.
//
// Not thread-safe: REQUIRES that calls come from one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "edge_runtime/bank_level.h"
#include "edge_runtime/clock.h"
#include "edge_runtime/eviction.h"
#include "edge_runtime/node.h"
#include "edge_runtime/result.h"
#include "edge_runtime/storage.h"

namespace edge {

class BlockLoader;
struct Block;

// One file of a level, with the storage that reads it.
struct LevelFile {
  BankLevel bank;
  std::unique_ptr<Storage> storage;
};
// The files of one level: the base first, overlays after it. The last file that has a node wins.
using PagedLevel = std::vector<LevelFile>;

// Opens the files of one level. kTruncated where a file changed its size meanwhile.
Result<PagedLevel> open_level(const std::vector<std::string>& paths, StorageKind kind,
                              const std::shared_ptr<ReadPool>& pool);

struct PagerOptions {
  std::uint64_t budget = 0;        // bytes, resident and in flight together
  bool verify = true;              // compare every layer with its checksum before it is used
  std::vector<Node> blocked = {};  // refused, each with its subtree
  std::vector<Node> removed = {};  // refused
  EvictionScore score = level_weighted_recency;
  std::uint64_t chunk_bytes = std::uint64_t{1} << 20;  // of one read; a multiple of kPage
};

struct PagerStats {
  std::uint64_t budget_bytes = 0;
  std::uint64_t resident_bytes = 0;   // blocks that have wholly arrived
  std::uint64_t in_flight_bytes = 0;  // blocks that have memory and are still being read
  std::uint64_t peak_bytes = 0;       // the most that the two have been together
  std::uint64_t leased_bytes = 0;     // blocks that leases use
  std::uint64_t leases = 0;           // open now
  std::uint64_t fetches = 0;          // granted
  std::uint64_t hits = 0;             // blocks found resident or in flight
  std::uint64_t misses = 0;           // blocks that had to be read
  std::uint64_t requests = 0;         // reads given to a storage
  std::uint64_t bytes_read = 0;       // of completed reads
  std::uint64_t evictions = 0;        // blocks
  std::uint64_t rereads = 0;          // layers read again after a checksum mismatch
  std::uint64_t failures = 0;         // blocks that ended in an error
};

using LeaseId = std::uint64_t;

// A leased block where it lies. Valid until the lease is released.
struct LeasedBlock {
  Node node;
  const BankLevelSpec* spec = nullptr;
  const std::byte* data = nullptr;  // spec->stride() bytes; null while the block waits for room
};

class Pager {
 public:
  // kInvalidArgument: levels that do not belong together (the message names the file). The clock outlives the pager.
  static Result<std::unique_ptr<Pager>> open(std::vector<PagedLevel> levels, const PagerOptions& options,
                                             const Clock& clock);
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;
  ~Pager();  // waits for reads under way; every LeasedBlock becomes invalid

  // A lease on the blocks of `nodes`; reads of those that are not in memory begin at once, the first layers first.
  // Nodes without a block are skipped. Blocks that another lease has are shared, at no cost. `replacing` gives up an
  // old lease in the same step: its blocks count as free, those that stay are kept. On failure the old lease is as it
  // was.
  //   kNotFound: no such level; kInvalidArgument: no such node, or one named twice; kBlocked: blocked or removed;
  //   kNeverFits: the lease alone exceeds the budget, required_bytes would do; kBusy: other leases are in the way;
  //   kCancelled: `replacing` is no open lease.
  // A fetch that is granted never fails for want of room: where reads of abandoned blocks still hold memory, new reads
  // begin as soon as those have ended.
  Result<LeaseId> fetch(std::span<const Node> nodes, std::optional<LeaseId> replacing = std::nullopt);

  // Ends a lease. Its finished blocks stay in memory until they are evicted; reads that no other lease waits for are
  // abandoned. An unknown lease is ignored.
  void release(LeaseId lease);

  // Takes completions, submits reads that have waited for their turn, verifies at most one layer. True: more layers
  // wait to be verified, call again at once. False: call again when a storage has completed something.
  bool poll();

  // Whether one layer (counted among the layers that carry memory) of every block of the lease has arrived and is
  // verified; whether all have. The block's error where a read failed or a checksum differs after one re-read: it names
  // file, level, node, row and offset. kCancelled: no open lease. REQUIRES layer < layers().
  Result<bool> ready(LeaseId lease, std::uint64_t layer) const;
  Result<bool> ready(LeaseId lease) const;

  // The lease's blocks in the order of fetch. Only the bytes of ready layers may be read. kCancelled: no open lease.
  Result<std::vector<LeasedBlock>> blocks(LeaseId lease) const;
  // Bytes that the lease caused to be read; nanoseconds from fetch to the last verified byte, nullopt until then.
  // 0 and nullopt where there is no open lease.
  std::uint64_t lease_bytes_read(LeaseId lease) const;
  std::optional<std::int64_t> lease_fetch_ns(LeaseId lease) const;

  // Evicts blocks that no lease uses, the policy's first choice first, until `bytes` are free again or none is left.
  // Returns the bytes freed. The budget stays as it is. For the system's memory-pressure signals.
  std::uint64_t shrink(std::uint64_t bytes);

  PagerStats stats() const;
  std::vector<StorageReport> storage_reports() const;
  std::uint64_t layers() const { return layers_; }
  std::uint32_t d_model() const { return d_model_; }
  // Called, from any thread, whenever poll has something to do. REQUIRES that nothing has been fetched yet.
  void set_waker(const std::function<void()>& waker);

 private:
  struct Lease {
    std::vector<Block*> blocks;
    std::uint64_t bytes_read = 0;
    std::int64_t start_ns = 0;
    std::optional<std::int64_t> end_ns;  // when the last layer was ready
  };

  Pager(std::vector<PagedLevel> levels, const PagerOptions& options, const Clock& clock);

  Status check(std::span<const Node> nodes) const;
  const LevelFile* locate(Node node, std::uint64_t& row) const;
  std::uint64_t held_without(const std::vector<Block*>& leaving, const std::set<Node>& wanted) const;
  void drop_lease(LeaseId id);
  void start_waiting();
  std::optional<std::uint64_t> evict_one();
  void changed(Block& block);
  void settle();
  void free_detached(Block& block);
  const Lease* find(LeaseId id) const;

  PagerOptions options_;
  const Clock& clock_;
  std::map<std::uint32_t, PagedLevel> levels_;
  std::set<Node> blocked_;
  std::set<Node> removed_;
  std::uint64_t layers_ = 0;
  std::uint32_t d_model_ = 0;

  std::unique_ptr<BlockLoader> loader_;
  std::map<Node, std::unique_ptr<Block>> live_;   // leased, or finished and waiting to be used again
  std::vector<std::unique_ptr<Block>> detached_;  // failed or abandoned: gone once unused and not being read
  std::deque<Block*> waiting_;                    // granted, without memory until abandoned reads have ended
  std::unordered_map<LeaseId, Lease> leases_;
  LeaseId next_lease_ = 1;
  std::uint64_t allocated_bytes_ = 0;  // of blocks that have memory
  std::uint64_t draining_bytes_ = 0;   // of those, abandoned ones that are still being read
  std::uint64_t waiting_bytes_ = 0;    // of blocks in waiting_
  PagerStats counters_;                // its counting half
};

}  // namespace edge
