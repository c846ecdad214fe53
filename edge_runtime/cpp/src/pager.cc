// Fetching and releasing: who holds which block.
#include "edge_runtime/pager.h"

#include <algorithm>
#include <string>
#include <utility>

#include "block_loader.h"

namespace edge {

namespace {

std::string name_of(Node node) {
  return "node " + std::to_string(node.index) + " of level " + std::to_string(node.level);
}

}  // namespace

Result<LeaseId> Pager::fetch(std::span<const Node> nodes, std::optional<LeaseId> replacing) {
  settle();
  if (auto allowed = check(nodes); !allowed) return tl::make_unexpected(std::move(allowed.error()));
  const Lease* const old = replacing ? find(*replacing) : nullptr;
  if (replacing && old == nullptr) return fail(ErrorCode::kCancelled, "the lease to replace is released");
  // Plan first, so that a refusal changes nothing.
  const std::vector<Wanted> wanted = plan(nodes);
  if (auto fits = admit(wanted, old); !fits) return tl::make_unexpected(std::move(fits.error()));

  const LeaseId id = next_lease_++;
  ++counters_.fetches;
  Lease lease;
  lease.start_ns = clock_.now_ns();
  lease.blocks.reserve(wanted.size());
  for (const Wanted& want : wanted) {
    const bool absent = want.block == nullptr;
    Block& block = absent ? attach(want) : *want.block;
    if (absent) {
      ++block.counters->misses;
      lease.bytes_read += block.bytes;
      waiting_bytes_ += block.bytes;
      waiting_.push_back(&block);
    } else {
      ++block.counters->hits;
    }
    use(block);
    if (!block.complete()) {
      ++lease.missing;
      block.waiters.push_back(id);
    }
    lease.blocks.push_back(&block);
  }
  if (lease.missing == 0) lease.end_ns = lease.start_ns;
  leases_.emplace(id, std::move(lease));
  if (replacing) drop_lease(*replacing);
  make_room();
  start_waiting();
  loader_->submit();
  return id;
}

Status Pager::check(std::span<const Node> nodes) {
  for (const Node node : nodes) {
    if (auto allowed = check(node); !allowed) return allowed;
  }
  sorted_.assign(nodes.begin(), nodes.end());
  std::sort(sorted_.begin(), sorted_.end());
  const auto twice = std::adjacent_find(sorted_.begin(), sorted_.end());
  if (twice == sorted_.end()) return {};
  return fail(ErrorCode::kInvalidArgument, name_of(*twice) + ": asked for twice");
}

Status Pager::check(Node node) const {
  const auto level = levels_.find(node.level);
  if (level == levels_.end()) return fail(ErrorCode::kNotFound, name_of(node) + ": the bank has no such level");
  const BankLevelSpec& spec = level->second.files.front().bank.spec();
  if (node.index >= spec.nodes) {
    return fail(ErrorCode::kInvalidArgument,
                name_of(node) + ": the level has " + std::to_string(spec.nodes) + " nodes");
  }
  if (removed_.contains(node)) return fail(ErrorCode::kBlocked, name_of(node) + " is removed");
  // Level 0 is nobody's parent: blocking the generic memory leaves the tree alone.
  for (Node at = node;; at = {at.level - 1, at.index / spec.fanout}) {
    if (blocked_.contains(at)) {
      return fail(ErrorCode::kBlocked, name_of(node) + " is blocked" +
                                           (at == node ? std::string() : ": it lies below the blocked " + name_of(at)));
    }
    if (at.level <= 1) return {};
  }
}

const LevelFile* Pager::locate(Node node, std::uint64_t& row) const {
  const PagedLevel& files = levels_.at(node.level).files;
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    const std::int32_t found = file->bank.row_of(node.index);
    if (found < 0) continue;
    row = static_cast<std::uint64_t>(found);
    return &*file;
  }
  return nullptr;
}

std::vector<Pager::Wanted> Pager::plan(std::span<const Node> nodes) const {
  std::vector<Wanted> wanted;
  wanted.reserve(nodes.size());
  for (const Node node : nodes) {
    const auto attached = attached_.find(node);
    if (attached != attached_.end()) {
      Block& block = *attached->second;
      wanted.push_back({node, block.file, block.row, block.bytes, block.pinned, &block});
      continue;
    }
    std::uint64_t row = 0;
    const LevelFile* const file = locate(node, row);
    if (file == nullptr) continue;
    wanted.push_back({node, file, row, file->bank.spec().stride(), pinned_.contains(node), nullptr});
  }
  return wanted;
}

// Whether the wanted blocks fit once `leaving` is given up and all is evicted that neither leases nor pins hold.
Status Pager::admit(std::span<const Wanted> wanted, const Lease* leaving) const {
  std::uint64_t total = pinned_bytes_;
  std::uint64_t missing = 0;
  std::uint64_t held = held_bytes_;
  for (const Wanted& want : wanted) {
    if (want.pinned) continue;
    total += want.bytes;
    if (want.block == nullptr) {
      missing += want.bytes;
    } else if (want.block->leases == 0) {
      held += want.bytes;
    }
  }
  if (total > options_.budget) {
    return fail(ErrorCode::kNeverFits,
                "the blocks of one lease take " + std::to_string(total) +
                    (pinned_bytes_ > 0 ? " bytes with the " + std::to_string(pinned_bytes_) + " that are pinned"
                                       : std::string(" bytes")) +
                    ", more than the budget of " + std::to_string(options_.budget) +
                    ": the smallest budget that works is " + std::to_string(total),
                total);
  }
  if (leaving != nullptr) {
    for (const Block* const block : leaving->blocks) {
      const bool stays = block->attached && std::binary_search(sorted_.begin(), sorted_.end(), block->node);
      if (block->leases == 1 && !block->pinned && !stays) held -= block->bytes;
    }
  }
  if (held + missing <= options_.budget) return {};
  return fail(ErrorCode::kBusy, std::to_string(missing) + " bytes have to be read, but leases in use hold " +
                                    std::to_string(held) + " bytes of the budget of " +
                                    std::to_string(options_.budget) + ": release one and retry");
}

Block& Pager::attach(const Wanted& wanted) {
  auto block = std::make_unique<Block>();
  block->node = wanted.node;
  block->file = wanted.file;
  block->row = wanted.row;
  block->bytes = wanted.bytes;
  block->layers.resize(layers_);
  block->counters = &levels_.at(wanted.node.level).stats;
  block->pinned = wanted.pinned;
  if (block->pinned) reserved_bytes_ -= block->bytes;
  return *attached_.emplace(wanted.node, std::move(block)).first->second;
}

void Pager::use(Block& block) {
  if (block.hinted) {
    ++counters_.prefetch_hits;
    block.hinted = false;
    std::erase(hints_, &block);
  }
  if (!block.complete()) {
    loader_->promote(block);
  } else if (block.leases == 0 && !block.pinned) {
    policy_->erase(idle_of(block));
  }
  block.hint.reset();
  ++block.uses;
  if (block.leases++ > 0) return;
  leased_bytes_ += block.bytes;
  if (!block.pinned) held_bytes_ += block.bytes;
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
    if (!block->complete()) std::erase(block->waiters, id);
    if (!block->pinned) policy_->used(block->node, counters_.fetches);
    block->last_use = counters_.fetches;
    if (--block->leases > 0) continue;
    leased_bytes_ -= block->bytes;
    if (!block->pinned) held_bytes_ -= block->bytes;
    if (!block->attached) {  // failed
      retire(*block);
    } else if (block->complete()) {
      rest(*block);
    } else if (!block->pinned) {  // nobody waits for its reads any more
      detach(*block);
    }
  }
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
  return lease->missing == 0;
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
