// Reads blocks and verifies them layer by layer. Knows nothing of leases and budgets: that is the pager's half.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "edge_runtime/pager.h"

namespace edge {

struct Block {
  struct Layer {
    std::uint32_t missing = 0;  // reads that bring a part of it
    bool again = false;         // read a second time
    bool ready = false;
  };

  Node node;
  const LevelFile* file = nullptr;
  std::uint64_t row = 0;
  std::uint64_t bytes = 0;  // its stride
  Buffer buffer;            // null until there is room
  std::vector<Layer> layers;
  std::uint64_t layers_ready = 0;
  std::optional<Error> error;
  std::uint32_t busy = 0;          // reads and checks under way: its memory has to stay
  LevelStats* counters = nullptr;  // of its level

  // The pager's half.
  std::uint32_t leases = 0;
  std::vector<LeaseId> waiters;  // leases that it is still missing to
  std::uint64_t uses = 0;
  std::uint64_t last_use = 0;  // in fetches granted
  bool attached = true;        // false: abandoned or failed, only there until unused and not busy
  bool pinned = false;
  bool hinted = false;                               // a hint has brought it and no lease has had it yet
  std::optional<std::uint64_t> hint = std::nullopt;  // what the last hint since its last use counts as

  bool complete() const { return layers_ready == layers.size(); }
};

inline IdleBlock idle_of(const Block& block) {
  return {block.node, block.bytes, block.uses, block.last_use, block.hint};
}

class BlockLoader {
 public:
  enum class Urgency : std::uint8_t {
    kFetch,
    kHint,  // read only while nothing is read for a fetch, one request at a time: a fetch never queues behind more
  };

  BlockLoader(std::vector<Storage*> storages, bool verify, std::uint64_t chunk_bytes);

  // Queues the reads of blocks, those of the first layers first. REQUIRES that each block has its buffer and is not
  // moved while it is busy.
  void begin(std::span<Block* const> blocks, Urgency urgency);
  // What is queued for a hint is from now on queued for a fetch.
  void promote(const Block& block);
  // Forgets what is queued for the block. What is under way still ends.
  void abandon(const Block& block);
  // Hands queued reads to the storages, as many as keep them busy.
  void submit();
  // Takes completions. Calls `changed` after each, as its last use of that block.
  void collect(const std::function<void(Block&)>& changed);

  // A layer that has arrived, in the order of arrival. Its block is busy until finish_check has been called.
  std::optional<LayerCheck> take_check();
  void finish_check(const LayerCheck& check, LayerVerdict verdict);
  bool has_unverified() const { return !unverified_.empty(); }

  // Waits until no storage works for us. REQUIRES that nothing of the loader is used afterwards.
  void drain();

  std::uint64_t requests() const { return requests_; }
  std::uint64_t rereads() const { return rereads_; }

 private:
  struct Read {
    Block* block;
    std::uint64_t begin;  // in the block
    std::uint64_t length;
    std::optional<std::uint64_t> again;  // the layer that a second read is for
  };

  void start(const Read& read);
  void arrived(const Read& read);
  void count_down(Block& block, std::uint64_t layer);
  void read_again(Block& block, std::uint64_t layer);
  void fail_block(Block& block, Error error);

  std::vector<Storage*> storages_;
  bool verify_;
  std::uint64_t chunk_bytes_;
  std::deque<Read> queue_;
  std::deque<Read> hints_;
  std::deque<LayerCheck> unverified_;
  std::unordered_map<std::uint64_t, Read> under_way_;            // by tag
  std::unordered_map<const Storage*, std::size_t> outstanding_;  // of under_way_
  std::uint64_t next_tag_ = 0;
  std::uint64_t requests_ = 0;
  std::uint64_t rereads_ = 0;
};

}  // namespace edge
