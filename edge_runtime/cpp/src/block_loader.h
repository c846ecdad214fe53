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
  std::uint32_t under_way = 0;  // reads that its storage has and that have not completed

  std::uint32_t leases = 0;
  std::uint64_t uses = 0;
  std::uint64_t last_use = 0;  // in fetches granted
  bool live = true;            // false: abandoned or failed; its completions only count down under_way

  bool complete() const { return layers_ready == layers.size(); }
};

class BlockLoader {
 public:
  BlockLoader(std::vector<Storage*> storages, bool verify, std::uint64_t chunk_bytes);

  // Queues the reads of blocks, those of the first layers first. REQUIRES that each block has its buffer and is not
  // moved until nothing of it is under way.
  void begin(std::span<Block* const> blocks);
  // Forgets what is queued for the block. What is under way still completes.
  void abandon(const Block& block);
  // Hands queued reads to the storages, as many as keep them busy.
  void submit();
  // Takes completions. Calls `changed` after each, as its last use of that block.
  void collect(const std::function<void(Block&)>& changed);
  // Verifies one layer, if one has arrived; returns its block.
  Block* verify_one();
  bool has_unverified() const { return !unverified_.empty(); }
  // Waits until no storage works for us. REQUIRES that nothing of the loader is used afterwards.
  void drain();

  std::uint64_t requests() const { return requests_; }
  std::uint64_t bytes_read() const { return bytes_read_; }
  std::uint64_t rereads() const { return rereads_; }

 private:
  struct Read {
    Block* block;
    std::uint64_t begin;  // in the block
    std::uint64_t length;
    std::optional<std::uint64_t> again;  // the layer that a second read is for
  };
  struct Check {
    Block* block;
    std::uint64_t layer;
  };

  void arrived(const Read& read);
  void count_down(Block& block, std::uint64_t layer);
  void read_again(Block& block, std::uint64_t layer);
  void fail_block(Block& block, Error error);

  std::vector<Storage*> storages_;
  bool verify_;
  std::uint64_t chunk_bytes_;
  std::deque<Read> queue_;
  std::deque<Check> unverified_;
  std::unordered_map<std::uint64_t, Read> under_way_;            // by tag
  std::unordered_map<const Storage*, std::size_t> outstanding_;  // of under_way_
  std::uint64_t next_tag_ = 0;
  std::uint64_t requests_ = 0;
  std::uint64_t bytes_read_ = 0;
  std::uint64_t rereads_ = 0;
};

}  // namespace edge
