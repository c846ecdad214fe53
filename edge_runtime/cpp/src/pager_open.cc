// Opening a pager, and what it tells about itself.
#include <algorithm>
#include <string>
#include <utility>

#include "block_loader.h"
#include "edge_runtime/dtype.h"
#include "edge_runtime/pager.h"

namespace edge {

namespace {

// What all levels of a bank share.
Status same_bank(const LevelFile& first, const LevelFile& file) {
  const BankLevelSpec& a = first.bank.spec();
  const BankLevelSpec& b = file.bank.spec();
  if (a.kind == b.kind && a.fanout == b.fanout && a.d_model == b.d_model && a.anchor_layers == b.anchor_layers)
    return {};
  return fail(ErrorCode::kInvalidArgument, file.bank.path() +
                                               ": kind, fanout, d_model or anchor_layers differ from those of " +
                                               first.bank.path() + ": the files belong to different banks");
}

Status same_level(const LevelFile& base, const LevelFile& overlay) {
  const BankLevelSpec& a = base.bank.spec();
  const BankLevelSpec& b = overlay.bank.spec();
  if (a.level == b.level && a.dtype == b.dtype && a.rows_per_block == b.rows_per_block) return {};
  return fail(
      ErrorCode::kInvalidArgument,
      overlay.bank.path() + ": level, dtype or rows_per_block differ from those of its base " + base.bank.path());
}

}  // namespace

Result<std::unique_ptr<Pager>> Pager::open(std::vector<PagedLevel> levels, const PagerOptions& options,
                                           const Clock& clock) {
  const auto no_files = [](const PagedLevel& level) { return level.empty(); };
  if (levels.empty() || std::any_of(levels.begin(), levels.end(), no_files)) {
    return fail(ErrorCode::kInvalidArgument, "a pager needs at least one level, and each level a file");
  }
  if (options.chunk_bytes == 0 || options.chunk_bytes % kPage != 0) {
    return fail(ErrorCode::kInvalidArgument, "chunk_bytes must be a multiple of " + std::to_string(kPage));
  }
  std::set<std::uint32_t> numbers;
  for (const PagedLevel& level : levels) {
    const LevelFile& base = level.front();
    if (!numbers.insert(base.bank.spec().level).second) {
      return fail(ErrorCode::kInvalidArgument,
                  base.bank.path() + ": level " + std::to_string(base.bank.spec().level) + " is given twice");
    }
    for (const LevelFile& file : level) {
      if (auto same = same_bank(levels.front().front(), file); !same) return tl::make_unexpected(same.error());
      if (auto same = same_level(base, file); !same) return tl::make_unexpected(same.error());
    }
  }
  std::unique_ptr<Pager> pager(new Pager(std::move(levels), options, clock));
  if (auto pinned = pager->pin(); !pinned) return tl::make_unexpected(std::move(pinned.error()));
  return pager;
}

Pager::Pager(std::vector<PagedLevel> levels, const PagerOptions& options, const Clock& clock)
    : options_(options),
      clock_(clock),
      blocked_(options.blocked.begin(), options.blocked.end()),
      removed_(options.removed.begin(), options.removed.end()),
      policy_(options.eviction()) {
  const BankLevelSpec& spec = levels.front().front().bank.spec();
  layers_ = spec.layers();
  d_model_ = spec.d_model;
  std::vector<Storage*> storages;
  for (PagedLevel& level : levels) {
    for (const LevelFile& file : level) storages.push_back(file.storage.get());
    const std::uint32_t number = level.front().bank.spec().level;
    levels_.emplace(number, Level{std::move(level), LevelStats{.level = number}});
  }
  loader_ = std::make_unique<BlockLoader>(std::move(storages), options.verify, options.chunk_bytes);
}

Pager::~Pager() { loader_->drain(); }

// Chooses the pinned nodes, before anything is read.
Status Pager::pin() {
  const auto keep = [this](Node node) {
    std::uint64_t row = 0;
    const LevelFile* const file = locate(node, row);
    if (file != nullptr && pinned_.insert(node).second) pinned_bytes_ += file->bank.spec().stride();
  };
  for (const Node node : options_.pinned) {
    if (auto allowed = check(node); !allowed) return fail(allowed.error().code, "pinned " + allowed.error().message);
    keep(node);
  }
  for (const std::uint32_t number : options_.pinned_levels) {
    const auto level = levels_.find(number);
    if (level == levels_.end()) {
      return fail(ErrorCode::kNotFound, "pinned level " + std::to_string(number) + ": the bank has no such level");
    }
    for (Node node{number, 0}; node.index < level->second.files.front().bank.spec().nodes; ++node.index) {
      if (check(node)) keep(node);
    }
  }
  if (pinned_bytes_ == 0) return {};
  reserved_bytes_ = held_bytes_ = pinned_bytes_;
  const std::uint64_t required = pinned_bytes_ + largest_path_bytes();
  if (required <= options_.budget) return {};
  return fail(ErrorCode::kNeverFits,
              "the pinned blocks take " + std::to_string(pinned_bytes_) + " bytes and one path beside them " +
                  std::to_string(required - pinned_bytes_) + ", more than the budget of " +
                  std::to_string(options_.budget) + ": the smallest budget that works is " + std::to_string(required),
              required);
}

// What a lease may need beside the pins: a block of each level, or the generic memory where that is larger.
std::uint64_t Pager::largest_path_bytes() const {
  std::uint64_t path = 0;
  std::uint64_t generic = 0;
  for (const auto& [number, level] : levels_) {
    const BankLevelSpec& spec = level.files.front().bank.spec();
    std::uint64_t row = 0;
    Node node{number, 0};
    while (node.index < spec.nodes && (pinned_.contains(node) || locate(node, row) == nullptr)) ++node.index;
    if (node.index < spec.nodes) (number == 0 ? generic : path) += spec.stride();
  }
  return std::max(path, generic);
}

void Pager::load_pinned() {
  pins_loaded_ = true;
  std::vector<Node> nodes(pinned_.begin(), pinned_.end());
  std::sort(nodes.begin(), nodes.end());
  // Where there is no memory for one now, the fetch of it says so.
  for (const Wanted& want : plan(nodes)) start_hint(want);
  loader_->submit();
}

PagerStats Pager::stats() const {
  PagerStats stats = counters_;
  stats.budget_bytes = options_.budget;
  for (const auto& [number, level] : levels_) {
    stats.levels.push_back(level.stats);
    stats.resident_bytes += level.stats.resident_bytes;
    stats.hits += level.stats.hits;
    stats.misses += level.stats.misses;
    stats.bytes_read += level.stats.bytes_read;
    stats.evictions += level.stats.evictions;
  }
  stats.in_flight_bytes = allocated_bytes_ - stats.resident_bytes;
  stats.leased_bytes = leased_bytes_;
  stats.pinned_bytes = pinned_bytes_;
  stats.leases = leases_.size();
  stats.requests = loader_->requests();
  stats.rereads = loader_->rereads();
  stats.fetch_latency_ns = fetch_latency_ns_.summary();
  return stats;
}

std::vector<StorageReport> Pager::storage_reports() const {
  std::vector<StorageReport> reports;
  for (const auto& [number, level] : levels_) {
    for (const LevelFile& file : level.files) reports.push_back(file.storage->report());
  }
  return reports;
}

void Pager::set_waker(const std::function<void()>& waker) {
  for (const auto& [number, level] : levels_) {
    for (const LevelFile& file : level.files) file.storage->set_waker(waker);
  }
}

}  // namespace edge
