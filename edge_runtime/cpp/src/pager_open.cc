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

Result<PagedLevel> open_level(const std::vector<std::string>& paths, StorageKind kind,
                              const std::shared_ptr<ReadPool>& pool) {
  PagedLevel level;
  for (const std::string& path : paths) {
    auto bank = BankLevel::open(path);
    if (!bank) return tl::make_unexpected(std::move(bank.error()));
    auto storage = open_storage(path, kind, pool);
    if (!storage) return tl::make_unexpected(std::move(storage.error()));
    if ((*storage)->file_bytes() != bank->file_bytes()) {
      return fail(ErrorCode::kTruncated, path + ": changed its size while it was opened; open it again");
    }
    level.push_back({std::move(*bank), std::move(*storage)});
  }
  return level;
}

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
  return std::unique_ptr<Pager>(new Pager(std::move(levels), options, clock));
}

PagerStats Pager::stats() const {
  PagerStats stats = counters_;
  for (const auto& [node, block] : live_) {
    if (block->complete()) stats.resident_bytes += block->bytes;
    if (block->leases > 0) stats.leased_bytes += block->bytes;
  }
  for (const auto& block : detached_) {
    if (block->leases > 0) stats.leased_bytes += block->bytes;
  }
  stats.in_flight_bytes = allocated_bytes_ - stats.resident_bytes;
  stats.leases = leases_.size();
  stats.requests = loader_->requests();
  stats.bytes_read = loader_->bytes_read();
  stats.rereads = loader_->rereads();
  return stats;
}

std::vector<StorageReport> Pager::storage_reports() const {
  std::vector<StorageReport> reports;
  for (const auto& [number, level] : levels_) {
    for (const LevelFile& file : level) reports.push_back(file.storage->report());
  }
  return reports;
}

void Pager::set_waker(const std::function<void()>& waker) {
  for (const auto& [number, level] : levels_) {
    for (const LevelFile& file : level) file.storage->set_waker(waker);
  }
}

}  // namespace edge
