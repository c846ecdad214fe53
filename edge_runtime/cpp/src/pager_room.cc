// The budget: who gets memory, and who gives it back.
#include <algorithm>
#include <utility>

#include "block_loader.h"
#include "edge_runtime/pager.h"

namespace edge {

// What would be taken once all that is granted has begun and all that is abandoned has ended.
std::uint64_t Pager::committed_bytes() const {
  return allocated_bytes_ - draining_bytes_ + waiting_bytes_ + reserved_bytes_;
}

void Pager::make_room() {
  // Hints that have not begun cost nothing. Those that have hold their memory until their read has ended: they go last.
  while (committed_bytes() > options_.budget && (drop_hint(false) > 0 || evict_one() > 0 || drop_hint(true) > 0)) {
  }
}

std::uint64_t Pager::shrink(std::uint64_t bytes) {
  std::uint64_t freed = 0;
  while (freed < bytes) {
    std::uint64_t more = drop_hint(false);
    if (more == 0) more = evict_one();
    if (more == 0) break;
    freed += more;
  }
  while (freed < bytes && drop_hint(true) > 0) {  // freed when their reads have ended: not counted
  }
  for (const auto& [number, level] : levels_) {
    for (const LevelFile& file : level.files) file.storage->trim();
  }
  return freed;
}

// Drops the oldest hint that is, or is not, being read. Returns its bytes, 0 where there is none.
std::uint64_t Pager::drop_hint(bool busy) {
  const auto found =
      std::find_if(hints_.begin(), hints_.end(), [busy](const Block* block) { return (block->busy > 0) == busy; });
  if (found == hints_.end()) return 0;
  const std::uint64_t bytes = (*found)->bytes;
  detach(**found);
  return bytes;
}

std::uint64_t Pager::evict_one() {
  const auto victim = policy_->coldest(counters_.fetches);
  if (!victim) return 0;
  Block& block = *attached_.at(*victim);
  const std::uint64_t bytes = block.bytes;
  policy_->erase(idle_of(block));
  evict(block);
  return bytes;
}

// REQUIRES that the policy has let go of the block.
void Pager::evict(Block& block) {
  block.counters->resident_bytes -= block.bytes;
  ++block.counters->evictions;
  allocated_bytes_ -= block.bytes;
  attached_.erase(block.node);
}

void Pager::start_waiting() {
  std::vector<Block*> started;
  while (!waiting_.empty() && allocated_bytes_ + waiting_.front()->bytes <= options_.budget) {
    Block& block = *waiting_.front();
    waiting_.pop_front();
    waiting_bytes_ -= block.bytes;
    if (auto given = give_memory(block); given) {
      started.push_back(&block);
    } else {
      block.error = std::move(given.error());
      changed(block);
    }
  }
  loader_->begin(started, BlockLoader::Urgency::kFetch);
}

Status Pager::give_memory(Block& block) {
  auto buffer = block.file->storage->acquire(block.file->bank.block_offset(block.row), block.bytes);
  if (!buffer) return tl::make_unexpected(std::move(buffer.error()));
  block.buffer = std::move(*buffer);
  allocated_bytes_ += block.bytes;
  counters_.peak_bytes = std::max(counters_.peak_bytes, allocated_bytes_);
  return {};
}

Result<std::uint64_t> Pager::prefetch(std::span<const Node> nodes) {
  settle();
  if (auto allowed = check(nodes); !allowed) return tl::make_unexpected(std::move(allowed.error()));
  std::uint64_t bytes = 0;
  for (const Wanted& want : plan(nodes)) {
    const IdleBlock hint = {want.node, want.bytes, 0, 0, hint_time()};
    // An earlier node of this hint may have taken the place of a later one.
    const auto found = attached_.find(want.node);
    if (found != attached_.end()) {
      refresh(*found->second);
    } else if (!want.pinned && make_room_for_hint(hint) && start_hint(want)) {
      bytes += want.bytes;
    }
  }
  loader_->submit();
  return bytes;
}

std::uint64_t Pager::hint_time() const { return counters_.fetches - std::min(counters_.fetches, kHintAge); }

// A block that is there already is worth what one is that the hint has brought.
void Pager::refresh(Block& block) {
  if (block.leases > 0 || block.pinned || !block.complete()) return;
  policy_->erase(idle_of(block));
  block.hint = hint_time();
  policy_->insert(idle_of(block));
}

bool Pager::make_room_for_hint(const IdleBlock& hint) {
  std::uint64_t taken = allocated_bytes_ + waiting_bytes_ + reserved_bytes_ + hint.bytes;
  std::vector<Block*> colder;
  while (taken > options_.budget) {
    const auto coldest = policy_->coldest(counters_.fetches);
    if (!coldest) break;
    Block& block = *attached_.at(*coldest);
    if (!policy_->colder(idle_of(block), hint, counters_.fetches)) break;
    policy_->erase(idle_of(block));
    colder.push_back(&block);
    taken -= block.bytes;
  }
  // All of them, or none for nothing.
  const bool fits = taken <= options_.budget;
  for (Block* const block : colder) {
    if (fits) {
      evict(*block);
    } else {
      policy_->insert(idle_of(*block));
    }
  }
  return fits;
}

// Begins to read a block that no lease waits for; false where the system has no memory for it.
bool Pager::start_hint(const Wanted& wanted) {
  Block* block = &attach(wanted);
  if (!give_memory(*block)) {
    detach(*block);
    return false;
  }
  if (!block->pinned) {
    ++counters_.prefetches;
    block->hinted = true;
    block->hint = hint_time();
    hints_.push_back(block);
  }
  loader_->begin({&block, 1}, BlockLoader::Urgency::kHint);
  return true;
}

// A complete block that no lease uses any more, or yet.
void Pager::rest(Block& block) {
  if (!block.pinned) policy_->insert(idle_of(block));
}

// An incomplete block is given up: it failed, or nobody waits for it. A later fetch of its node reads it anew.
void Pager::detach(Block& block) {
  loader_->abandon(block);
  block.attached = false;
  std::erase(hints_, &block);
  if (std::erase(waiting_, &block) > 0) waiting_bytes_ -= block.bytes;
  if (block.pinned) {
    block.pinned = false;
    reserved_bytes_ += block.bytes;
    if (block.leases > 0) held_bytes_ += block.bytes;
  }
  detached_.push_back(std::move(attached_.extract(block.node).mapped()));
  if (block.leases == 0) retire(block);
}

// A detached block that no lease uses any more.
void Pager::retire(Block& block) {
  if (block.buffer != nullptr) draining_bytes_ += block.bytes;
  free_if_done(block);
}

void Pager::free_if_done(const Block& block) {
  if (block.leases > 0 || block.busy > 0) return;
  if (block.buffer != nullptr) {
    draining_bytes_ -= block.bytes;
    allocated_bytes_ -= block.bytes;
  }
  std::erase_if(detached_, [&](const std::unique_ptr<Block>& owned) { return owned.get() == &block; });
}

// After a completion or a check, which may have been the block's last.
void Pager::changed(Block& block) {
  if (!block.attached) {
    free_if_done(block);
  } else if (block.error) {
    ++counters_.failures;
    detach(block);
  } else if (block.complete()) {
    completed(block);
  }
}

void Pager::completed(Block& block) {
  block.counters->resident_bytes += block.bytes;
  std::erase(hints_, &block);
  for (const LeaseId id : block.waiters) {
    Lease& lease = leases_.at(id);
    if (--lease.missing > 0) continue;
    lease.end_ns = clock_.now_ns();
    fetch_latency_ns_.record(*lease.end_ns - lease.start_ns);
  }
  block.waiters.clear();
  if (block.leases == 0) rest(block);
}

void Pager::settle() {
  if (!pins_loaded_) load_pinned();
  loader_->collect([this](Block& block) { changed(block); });
}

bool Pager::poll() {
  poll_reads();
  if (const auto check = take_check()) finish_check(*check, check->run());
  return loader_->has_unverified();
}

void Pager::poll_reads() {
  settle();
  start_waiting();
  loader_->submit();
}

std::optional<LayerCheck> Pager::take_check() { return loader_->take_check(); }

void Pager::finish_check(const LayerCheck& check, LayerVerdict verdict) {
  Block& block = *check.block;
  loader_->finish_check(check, verdict);
  changed(block);
  start_waiting();  // it may have been the last that an abandoned block waited for
  loader_->submit();
}

}  // namespace edge
