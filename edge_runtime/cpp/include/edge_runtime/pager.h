// Brings blocks of a bank into memory under a hard budget.
//
// A state machine without threads: fetch() plans and submits reads, poll() takes completions and verifies, and nothing
// waits. Time comes from a Clock, completions from the storages, so tests and the simulator drive the very code that
// serves a device. BlockingPager (blocking_pager.h) is the thread-safe shell around it.
//
// Invariants, after every call:
//  - resident_bytes + in_flight_bytes <= budget; a block counts its whole stride from the moment it has memory.
//  - A block that a lease uses is neither evicted nor moved; a pinned one is never evicted.
//  - Bytes of a layer are shown only after that layer has arrived and, unless verification is off, equals its checksum.
//
// Not thread-safe: REQUIRES that calls come from one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "edge_runtime/bank_level.h"
#include "edge_runtime/clock.h"
#include "edge_runtime/eviction.h"
#include "edge_runtime/histogram.h"
#include "edge_runtime/node.h"
#include "edge_runtime/pager_stats.h"
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
// tiers.h opens them.
using PagedLevel = std::vector<LevelFile>;

struct PagerOptions {
  std::uint64_t budget = 0;        // bytes, resident and in flight together
  bool verify = true;              // compare every layer with its checksum before it is used
  std::vector<Node> blocked = {};  // refused, each with its subtree
  std::vector<Node> removed = {};  // refused
  // Blocks that are never evicted: single nodes, and all nodes of whole levels that are not refused. Their bytes are
  // taken from the budget at open; they are read behind whatever is fetched, or as soon as they are fetched themselves.
  std::vector<Node> pinned = {};
  std::vector<std::uint32_t> pinned_levels = {};
  std::function<std::unique_ptr<EvictionPolicy>()> eviction = make_decayed_frequency;
  std::uint64_t chunk_bytes = std::uint64_t{1} << 20;  // of one read; a multiple of kPage
};

using LeaseId = std::uint64_t;

// A layer that has arrived, to be compared with its checksum. Its bytes do not change before the pager is told the
// verdict.
enum class LayerVerdict : std::uint8_t { kGood, kMismatch, kBadScale };
struct LayerCheck {
  Block* block = nullptr;
  const BankLevel* bank = nullptr;
  std::uint64_t row = 0;
  std::span<const std::byte> bytes = {};
  std::uint64_t layer = 0;

  LayerVerdict run() const;  // on any thread
};

// A leased block where it lies. Valid until the lease is released.
struct LeasedBlock {
  Node node;
  const BankLevelSpec* spec = nullptr;
  const std::byte* data = nullptr;  // spec->stride() bytes; null while the block waits for room
};

class Pager {
 public:
  // kInvalidArgument: levels that do not belong together (the message names the file). The clock outlives the pager.
  // Of the pinned nodes: kNotFound, kInvalidArgument, kBlocked as for fetch; kNeverFits: they do not fit beside one
  // path (a block of each level, or the generic memory where that is larger), required_bytes would do.
  static Result<std::unique_ptr<Pager>> open(std::vector<PagedLevel> levels, const PagerOptions& options,
                                             const Clock& clock);
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;
  // Waits for reads under way; every LeasedBlock becomes invalid. REQUIRES that no check is under way.
  ~Pager();

  // A lease on the blocks of `nodes`; reads of those that are not in memory begin at once, the first layers first.
  // Nodes without a block are skipped. Blocks that another lease has are shared, at no cost. `replacing` gives up an
  // old lease in the same step: its blocks count as free, those that stay are kept. On failure the old lease is as it
  // was.
  //   kNotFound: no such level; kInvalidArgument: no such node, or one named twice; kBlocked: blocked or removed;
  //   kNeverFits: the lease and what is pinned exceed the budget, required_bytes would do; kBusy: other leases are in
  //   the way; kCancelled: `replacing` is no open lease.
  // A fetch that is granted never fails for want of room: where reads of abandoned blocks still hold memory, new reads
  // begin as soon as those have ended.
  // Where all blocks are resident nothing is read, copied, or waited for.
  Result<LeaseId> fetch(std::span<const Node> nodes, std::optional<LeaseId> replacing = std::nullopt);

  // Ends a lease. Its finished blocks stay in memory until they are evicted; reads that no other lease waits for are
  // abandoned. An unknown lease is ignored.
  void release(LeaseId lease);

  // A hint that the nodes may be fetched soon: reads those that are not in memory, one request at a time and only while
  // nothing is read for a fetch. It takes free room and blocks that are colder than one used kHintAge fetches ago,
  // never what is leased, pinned or warmer, and gives its own room back where a fetch needs it; a node that finds no
  // room is passed over. A read that fails is forgotten. Returns the bytes that will be read. Errors as fetch's for the
  // nodes.
  Result<std::uint64_t> prefetch(std::span<const Node> nodes);
  static constexpr std::uint64_t kHintAge = 4;

  // Takes completions, submits reads that have waited for their turn, verifies at most one layer. True: more layers
  // wait to be verified, call again at once. False: call again when a storage has completed something.
  bool poll();
  // The same in steps, so that a caller with a lock verifies outside it, on several threads: poll_reads without the
  // verifying; a layer that has arrived, nullopt where there is none; its verdict. Each check taken has to be finished.
  void poll_reads();
  std::optional<LayerCheck> take_check();
  void finish_check(const LayerCheck& check, LayerVerdict verdict);

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

  // Drops hints and evicts blocks that no lease uses, the policy's first choice first, until `bytes` are free again or
  // none is left. Pinned blocks stay. Returns the bytes freed. The budget stays as it is. For the system's
  // memory-pressure signals.
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
    std::size_t missing = 0;  // of them, not complete
    std::uint64_t bytes_read = 0;
    std::int64_t start_ns = 0;
    std::optional<std::int64_t> end_ns;  // when the last layer was ready
  };
  struct Level {
    PagedLevel files;
    LevelStats stats;
  };
  struct Wanted {  // a node of a call that has a block
    Node node;
    const LevelFile* file;
    std::uint64_t row;
    std::uint64_t bytes;
    bool pinned;
    Block* block;  // attached; null where it has to be read
  };

  Pager(std::vector<PagedLevel> levels, const PagerOptions& options, const Clock& clock);

  // Opening.
  Status pin();
  std::uint64_t largest_path_bytes() const;
  void load_pinned();

  // Fetching.
  Status check(std::span<const Node> nodes);
  Status check(Node node) const;
  const LevelFile* locate(Node node, std::uint64_t& row) const;
  std::vector<Wanted> plan(std::span<const Node> nodes) const;
  Status admit(std::span<const Wanted> wanted, const Lease* leaving) const;
  Block& attach(const Wanted& wanted);
  void use(Block& block);
  void drop_lease(LeaseId id);
  const Lease* find(LeaseId id) const;

  // Room (pager_room.cc).
  std::uint64_t committed_bytes() const;
  void make_room();
  std::uint64_t drop_hint(bool busy);
  std::uint64_t evict_one();
  void evict(Block& block);
  void start_waiting();
  Status give_memory(Block& block);
  std::uint64_t hint_time() const;
  void refresh(Block& block);
  bool make_room_for_hint(const IdleBlock& hint);
  bool start_hint(const Wanted& wanted);
  void rest(Block& block);
  void detach(Block& block);
  void retire(Block& block);
  void free_if_done(const Block& block);
  void changed(Block& block);
  void completed(Block& block);
  void settle();

  PagerOptions options_;
  const Clock& clock_;
  std::map<std::uint32_t, Level> levels_;
  std::set<Node> blocked_;
  std::set<Node> removed_;
  std::unordered_set<Node, NodeHash> pinned_;
  std::uint64_t layers_ = 0;
  std::uint32_t d_model_ = 0;

  std::unique_ptr<BlockLoader> loader_;
  std::unique_ptr<EvictionPolicy> policy_;  // has the complete blocks that neither leases nor pins hold
  std::unordered_map<Node, std::unique_ptr<Block>, NodeHash> attached_;
  std::vector<std::unique_ptr<Block>> detached_;  // failed or abandoned: gone once unused and not busy
  std::deque<Block*> waiting_;                    // granted, without memory until abandoned reads have ended
  std::deque<Block*> hints_;                      // being read for a hint alone, the oldest first
  std::unordered_map<LeaseId, Lease> leases_;
  std::vector<Node> sorted_;  // the nodes of the call under way
  LeaseId next_lease_ = 1;
  bool pins_loaded_ = false;
  // Bytes of blocks.
  std::uint64_t allocated_bytes_ = 0;  // that have memory
  std::uint64_t draining_bytes_ = 0;   // of those, detached ones that no lease uses and that are busy
  std::uint64_t waiting_bytes_ = 0;    // in waiting_
  std::uint64_t leased_bytes_ = 0;     // that leases use
  std::uint64_t pinned_bytes_ = 0;     // of all pinned nodes
  std::uint64_t reserved_bytes_ = 0;   // of those, the ones without an attached block
  std::uint64_t held_bytes_ = 0;       // pinned, and others that leases use: what no eviction frees
  PagerStats counters_;                // its totals that are not kept elsewhere
  Histogram fetch_latency_ns_;
};

}  // namespace edge
