#include "edge_runtime/pager.h"

#include <algorithm>
#include <string>
#include <utility>

#include "block_loader.h"
#include "edge_runtime/dtype.h"

namespace edge {

Pager::Pager(std::vector<PagedLevel> levels, const PagerOptions& options, const Clock& clock)
    : options_(options),
      clock_(clock),
      blocked_(options.blocked.begin(), options.blocked.end()),
      removed_(options.removed.begin(), options.removed.end()) {
  const BankLevelSpec& spec = levels.front().front().bank.spec();
  layers_ = spec.layers();
  d_model_ = spec.d_model;
  counters_.budget_bytes = options.budget;
  std::vector<Storage*> storages;
  for (PagedLevel& level : levels) {
    for (const LevelFile& file : level) storages.push_back(file.storage.get());
    const std::uint32_t number = level.front().bank.spec().level;
    levels_.emplace(number, std::move(level));
  }
  loader_ = std::make_unique<BlockLoader>(std::move(storages), options.verify, options.chunk_bytes);
}

Pager::~Pager() { loader_->drain(); }

Result<LeaseId> Pager::fetch(std::span<const Node> nodes, std::optional<LeaseId> replacing) {
  settle();
  if (auto allowed = check(nodes); !allowed) return tl::make_unexpected(std::move(allowed.error()));
  const Lease* const old = replacing ? find(*replacing) : nullptr;
  if (replacing && old == nullptr) return fail(ErrorCode::kCancelled, "the lease to replace is released");

  // Plan first, so that a refusal changes nothing.
  std::vector<std::unique_ptr<Block>> wanted;  // in the order of `nodes`; those that are live already stay as they are
  std::set<Node> names;
  std::uint64_t total = 0;
  std::uint64_t missing = 0;
  for (const Node node : nodes) {
    auto block = std::make_unique<Block>();
    block->file = locate(node, block->row);
    if (block->file == nullptr) continue;
    block->node = node;
    block->bytes = block->file->bank.spec().stride();
    block->layers.resize(layers_);
    names.insert(node);
    total += block->bytes;
    if (!live_.contains(node)) missing += block->bytes;
    wanted.push_back(std::move(block));
  }
  if (total > options_.budget) {
    return fail(ErrorCode::kNeverFits,
                "the blocks of one lease take " + std::to_string(total) + " bytes, more than the budget of " +
                    std::to_string(options_.budget) + ": the smallest budget that works is " + std::to_string(total),
                total);
  }
  const std::uint64_t held = held_without(old != nullptr ? old->blocks : std::vector<Block*>{}, names);
  if (held + missing > options_.budget) {
    return fail(ErrorCode::kBusy, std::to_string(missing) + " bytes have to be read, but leases in use hold " +
                                      std::to_string(held) + " bytes of the budget of " +
                                      std::to_string(options_.budget) + ": release one and retry");
  }

  const LeaseId id = next_lease_++;
  ++counters_.fetches;
  Lease lease;
  lease.start_ns = clock_.now_ns();
  for (std::unique_ptr<Block>& block : wanted) {
    const auto [entry, absent] = live_.try_emplace(block->node, nullptr);
    if (absent) {
      ++counters_.misses;
      lease.bytes_read += block->bytes;
      waiting_bytes_ += block->bytes;
      waiting_.push_back(block.get());
      entry->second = std::move(block);
    } else {
      ++counters_.hits;
    }
    Block& used = *entry->second;
    ++used.leases;
    ++used.uses;
    used.last_use = counters_.fetches;
    lease.blocks.push_back(&used);
  }
  if (std::all_of(lease.blocks.begin(), lease.blocks.end(), [](const Block* block) { return block->complete(); })) {
    lease.end_ns = lease.start_ns;
  }
  leases_.emplace(id, std::move(lease));
  if (replacing) drop_lease(*replacing);
  while (allocated_bytes_ - draining_bytes_ + waiting_bytes_ > options_.budget && evict_one()) {
  }
  start_waiting();
  loader_->submit();
  return id;
}

Status Pager::check(std::span<const Node> nodes) const {
  std::set<Node> seen;
  for (const Node node : nodes) {
    const std::string name = "node " + std::to_string(node.index) + " of level " + std::to_string(node.level);
    const auto level = levels_.find(node.level);
    if (level == levels_.end()) return fail(ErrorCode::kNotFound, name + ": the bank has no such level");
    const BankLevelSpec& spec = level->second.front().bank.spec();
    if (node.index >= spec.nodes) {
      return fail(ErrorCode::kInvalidArgument, name + ": the level has " + std::to_string(spec.nodes) + " nodes");
    }
    if (!seen.insert(node).second) return fail(ErrorCode::kInvalidArgument, name + ": asked for twice");
    if (removed_.contains(node)) return fail(ErrorCode::kBlocked, name + " is removed");
    // Level 0 is nobody's parent: blocking the generic memory leaves the tree alone.
    for (Node at = node;; at = {at.level - 1, at.index / spec.fanout}) {
      if (blocked_.contains(at)) {
        return fail(ErrorCode::kBlocked,
                    name + " is blocked" +
                        (at == node ? std::string()
                                    : ": it lies below the blocked node " + std::to_string(at.index) + " of level " +
                                          std::to_string(at.level)));
      }
      if (at.level <= 1) break;
    }
  }
  return {};
}

const LevelFile* Pager::locate(Node node, std::uint64_t& row) const {
  const PagedLevel& files = levels_.at(node.level);
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    const std::int32_t found = file->bank.row_of(node.index);
    if (found < 0) continue;
    row = static_cast<std::uint64_t>(found);
    return &*file;
  }
  return nullptr;
}

// Bytes that stay taken when `leaving` is given up and all that no lease uses is evicted, but for the `wanted` blocks.
std::uint64_t Pager::held_without(const std::vector<Block*>& leaving, const std::set<Node>& wanted) const {
  std::uint64_t held = 0;
  const auto count = [&](const Block* block) {
    const bool left = std::find(leaving.begin(), leaving.end(), block) != leaving.end();
    const bool used = block->leases > (left ? 1U : 0U);
    if (used || (block->live && wanted.contains(block->node))) held += block->bytes;
  };
  for (const auto& [node, block] : live_) count(block.get());
  for (const auto& block : detached_) count(block.get());
  return held;
}

void Pager::release(LeaseId lease) {
  settle();
  if (!leases_.contains(lease)) return;
  drop_lease(lease);
  start_waiting();
  loader_->submit();
}

void Pager::drop_lease(LeaseId id) {
  const Lease lease = std::move(leases_.extract(id).mapped());
  for (Block* const block : lease.blocks) {
    block->last_use = counters_.fetches;
    if (--block->leases > 0) continue;
    if (!block->live) {  // failed
      if (block->under_way == 0) {
        free_detached(*block);
      } else {
        draining_bytes_ += block->bytes;
      }
    } else if (!block->complete()) {
      block->live = false;
      loader_->abandon(*block);
      std::unique_ptr<Block> owned = std::move(live_.extract(block->node).mapped());
      if (block->buffer == nullptr) {
        std::erase(waiting_, block);
        waiting_bytes_ -= block->bytes;
      } else if (block->under_way == 0) {
        allocated_bytes_ -= block->bytes;
      } else {
        draining_bytes_ += block->bytes;
        detached_.push_back(std::move(owned));
      }
    }
  }
}

void Pager::free_detached(Block& block) {
  if (block.buffer != nullptr) allocated_bytes_ -= block.bytes;
  std::erase_if(detached_, [&](const std::unique_ptr<Block>& owned) { return owned.get() == &block; });
}

void Pager::start_waiting() {
  std::vector<Block*> started;
  while (!waiting_.empty() && allocated_bytes_ + waiting_.front()->bytes <= options_.budget) {
    Block& block = *waiting_.front();
    waiting_.pop_front();
    waiting_bytes_ -= block.bytes;
    auto buffer = block.file->storage->acquire(block.file->bank.block_offset(block.row), block.bytes);
    if (!buffer) {
      block.error = std::move(buffer.error());
      block.live = false;
      changed(block);
      continue;
    }
    block.buffer = std::move(*buffer);
    allocated_bytes_ += block.bytes;
    started.push_back(&block);
  }
  counters_.peak_bytes = std::max(counters_.peak_bytes, allocated_bytes_);
  loader_->begin(started);
}

// After a completion or a verification: a failed block makes way for a new attempt, an abandoned one gives its memory
// back with its last read, and a complete one may complete leases.
void Pager::changed(Block& block) {
  if (block.error && block.leases > 0) {
    const auto entry = live_.find(block.node);
    if (entry != live_.end() && entry->second.get() == &block) {
      ++counters_.failures;
      detached_.push_back(std::move(entry->second));
      live_.erase(entry);
    }
  } else if (block.leases == 0 && block.under_way == 0) {
    draining_bytes_ -= block.bytes;
    free_detached(block);
  } else if (block.complete()) {
    for (auto& [id, lease] : leases_) {
      if (lease.end_ns) continue;
      const bool all =
          std::all_of(lease.blocks.begin(), lease.blocks.end(), [](const Block* b) { return b->complete(); });
      if (all) lease.end_ns = clock_.now_ns();
    }
  }
}

void Pager::settle() {
  loader_->collect([this](Block& block) { changed(block); });
}

bool Pager::poll() {
  settle();
  start_waiting();
  if (Block* const block = loader_->verify_one()) changed(*block);
  loader_->submit();
  return loader_->has_unverified();
}

std::optional<std::uint64_t> Pager::evict_one() {
  auto victim = live_.end();
  double worst = 0;
  for (auto entry = live_.begin(); entry != live_.end(); ++entry) {
    const Block& block = *entry->second;
    if (block.leases > 0) continue;
    const double score = options_.score({.level = block.node.level,
                                         .bytes = block.bytes,
                                         .uses = block.uses,
                                         .idle = counters_.fetches - block.last_use + 1});
    if (victim != live_.end() && score <= worst) continue;
    victim = entry;
    worst = score;
  }
  if (victim == live_.end()) return std::nullopt;
  const std::uint64_t bytes = victim->second->bytes;
  allocated_bytes_ -= bytes;
  ++counters_.evictions;
  live_.erase(victim);
  return bytes;
}

std::uint64_t Pager::shrink(std::uint64_t bytes) {
  std::uint64_t freed = 0;
  while (freed < bytes) {
    const auto evicted = evict_one();
    if (!evicted) break;
    freed += *evicted;
  }
  return freed;
}

const Pager::Lease* Pager::find(LeaseId id) const {
  const auto found = leases_.find(id);
  return found == leases_.end() ? nullptr : &found->second;
}

Result<bool> Pager::ready(LeaseId id, std::uint64_t layer) const {
  const Lease* const lease = find(id);
  if (lease == nullptr) return fail(ErrorCode::kCancelled, "the lease is released");
  bool all = true;
  for (const Block* const block : lease->blocks) {
    if (block->error) return tl::make_unexpected(*block->error);
    all = all && block->layers[layer].ready;
  }
  return all;
}

Result<bool> Pager::ready(LeaseId id) const {
  const Lease* const lease = find(id);
  if (lease == nullptr) return fail(ErrorCode::kCancelled, "the lease is released");
  for (const Block* const block : lease->blocks) {
    if (block->error) return tl::make_unexpected(*block->error);
  }
  return lease->end_ns.has_value();
}

Result<std::vector<LeasedBlock>> Pager::blocks(LeaseId id) const {
  const Lease* const lease = find(id);
  if (lease == nullptr) return fail(ErrorCode::kCancelled, "the lease is released");
  std::vector<LeasedBlock> blocks;
  blocks.reserve(lease->blocks.size());
  for (const Block* const block : lease->blocks) {
    blocks.push_back({block->node, &block->file->bank.spec(), block->buffer.get()});
  }
  return blocks;
}

std::uint64_t Pager::lease_bytes_read(LeaseId id) const {
  const Lease* const lease = find(id);
  return lease == nullptr ? 0 : lease->bytes_read;
}

std::optional<std::int64_t> Pager::lease_fetch_ns(LeaseId id) const {
  const Lease* const lease = find(id);
  if (lease == nullptr || !lease->end_ns) return std::nullopt;
  return *lease->end_ns - lease->start_ns;
}

}  // namespace edge
