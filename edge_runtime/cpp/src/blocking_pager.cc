#include "edge_runtime/blocking_pager.h"

#include <utility>

#include "device.h"
#include "edge_runtime/clock.h"

namespace edge {

Lease::Lease(std::shared_ptr<BlockingPager> pager, LeaseId id, std::uint64_t bytes_read)
    : pager_(std::move(pager)), id_(id), bytes_read_(bytes_read) {}

Lease::~Lease() {
  unregister_source(handle_);
  const std::scoped_lock lock(pager_->mutex_);
  pager_->pager_->release(id_);
  pager_->progress_.notify_all();  // what waited for its memory may have got it, or failed to
}

Status Lease::wait(std::uint64_t layer) {
  std::unique_lock lock(pager_->mutex_);
  return pager_->wait(lock, *this, layer);
}

Status Lease::wait() {
  std::unique_lock lock(pager_->mutex_);
  return pager_->wait(lock, *this, std::nullopt);
}

Status Lease::layer(std::uint32_t layer, std::vector<MemoryRows>& rows) {
  rows.clear();
  std::unique_lock lock(pager_->mutex_);
  if (auto arrived = pager_->wait(lock, *this, layer); !arrived) return arrived;
  const auto blocks = pager_->pager_->blocks(id_);
  if (!blocks) return tl::make_unexpected(blocks.error());
  for (const LeasedBlock& block : *blocks) {
    const BankLevelSpec& spec = *block.spec;
    if (spec.kind != "ffn")
      return fail(ErrorCode::kUnsupported, "memory of the kind " + spec.kind + " is not FFN memory");
    rows.push_back({.dtype = spec.dtype,
                    .rows = spec.rows_per_block,
                    .data = block.data + spec.layer_offset(layer),
                    .scales = spec.layer_scale_bytes() == 0 ? nullptr : block.data + spec.scale_offset(layer)});
  }
  return {};
}

void Lease::cancel() {
  const std::scoped_lock lock(pager_->mutex_);
  pager_->cancel(*this);
}

Result<std::vector<LeasedBlock>> Lease::blocks() {
  std::unique_lock lock(pager_->mutex_);
  if (auto arrived = pager_->wait(lock, *this, std::nullopt); !arrived) return tl::make_unexpected(arrived.error());
  return pager_->pager_->blocks(id_);
}

std::uint32_t Lease::layers() const { return static_cast<std::uint32_t>(pager_->layers()); }

std::uint32_t Lease::d_model() const { return pager_->d_model(); }

std::optional<std::int64_t> Lease::fetch_ns() const {
  const std::scoped_lock lock(pager_->mutex_);
  return fetch_ns_ ? fetch_ns_ : pager_->pager_->lease_fetch_ns(id_);
}

std::int64_t Lease::stall_ns() const {
  const std::scoped_lock lock(pager_->mutex_);
  return stall_ns_;
}

Result<std::shared_ptr<BlockingPager>> BlockingPager::open(std::vector<PagedLevel> levels,
                                                           const PagerOptions& options) {
  return open(std::move(levels), options, nullptr);
}

Result<std::shared_ptr<BlockingPager>> BlockingPager::open(const std::vector<std::vector<std::string>>& paths,
                                                           const Tiers& tiers, const PagerOptions& options,
                                                           DeviceOptions device) {
  if (device.memory == nullptr) device.memory = make_block_memory(options.budget);
  device.ring = make_driven_ring();
  auto levels = open_levels(paths, tiers, device);
  if (!levels) return tl::make_unexpected(std::move(levels.error()));
  return open(std::move(*levels), options, device.ring);
}

Result<std::shared_ptr<BlockingPager>> BlockingPager::open(std::vector<PagedLevel> levels, const PagerOptions& options,
                                                           std::shared_ptr<Ring> ring) {
  auto pager = Pager::open(std::move(levels), options, system_clock());
  if (!pager) return tl::make_unexpected(std::move(pager.error()));
  return std::shared_ptr<BlockingPager>(new BlockingPager(std::move(*pager), std::move(ring)));
}

BlockingPager::BlockingPager(std::unique_ptr<Pager> pager, std::shared_ptr<Ring> ring)
    : ring_(std::move(ring)), driven_(ring_ == nullptr ? nullptr : ring_->opened()), pager_(std::move(pager)) {
  pager_->set_waker([this] { wake(); });
  thread_ = std::thread([this] { run(); });
  wake();  // for the first poll, which begins to load what is pinned
}

BlockingPager::~BlockingPager() {
  {
    std::unique_lock lock(mutex_);
    closing_ = true;
    progress_.wait(lock, [this] { return !polling_; });
  }
  pager_.reset();  // while what its reads wake, and who drives them, is still there
  stopping_ = true;
  wake();
  thread_.join();
}

void BlockingPager::wake() {
  if (driven_ != nullptr) return driven_->wake();
  {
    const std::scoped_lock lock(wake_mutex_);
    woken_ = true;
  }
  wake_.notify_one();
}

void BlockingPager::sleep() {
  if (driven_ != nullptr) return driven_->drive();
  std::unique_lock lock(wake_mutex_);
  wake_.wait(lock, [this] { return woken_; });
  woken_ = false;
}

void BlockingPager::run() {
  while (!stopping_) {
    sleep();
    std::unique_lock lock(mutex_);
    if (closing_) continue;
    polling_ = true;
    do {
      // Between two layers: the next reads begin while layers are verified.
      pager_->poll_reads();
      progress_.notify_all();
    } while (verify_one(lock) && !closing_);
    polling_ = false;
    progress_.notify_all();
  }
}

bool BlockingPager::verify_one(std::unique_lock<std::mutex>& lock) {
  const auto check = pager_->take_check();
  if (!check) return false;
  lock.unlock();
  const LayerVerdict verdict = check->run();
  lock.lock();
  pager_->finish_check(*check, verdict);
  progress_.notify_all();
  return true;
}

Result<std::shared_ptr<Lease>> BlockingPager::fetch(std::span<const Node> nodes,
                                                    const std::shared_ptr<Lease>& replacing) {
  const std::scoped_lock lock(mutex_);
  std::optional<LeaseId> old;
  if (replacing != nullptr) {
    if (replacing.use_count() > 1) {
      return fail(ErrorCode::kBusy, "the lease to replace is being read: wait for its program, release its views");
    }
    // Nobody else holds it, and from here on nobody gets to its bytes: layer() waits for our lock. Taking and dropping
    // a reference orders what former holders have read before what the next read overwrites.
    const std::shared_ptr<Lease> synchronise = replacing;  // NOLINT(performance-unnecessary-copy-initialization)
    old = replacing->id_;
    if (replacing->cancelled_) return fail(ErrorCode::kCancelled, "the lease to replace is cancelled");
  }
  const auto fetch_ns = old ? pager_->lease_fetch_ns(*old) : std::nullopt;
  const auto id = pager_->fetch(nodes, old);
  progress_.notify_all();  // the room that it made may have gone to others, or the system had none for them
  if (!id) return tl::make_unexpected(id.error());
  if (replacing != nullptr) {
    replacing->fetch_ns_ = fetch_ns;
    cancel(*replacing);
  }
  auto lease = std::make_shared<Lease>(shared_from_this(), *id, pager_->lease_bytes_read(*id));
  lease->handle_ = register_source(lease);
  return lease;
}

Status BlockingPager::wait(std::unique_lock<std::mutex>& lock, Lease& lease, std::optional<std::uint64_t> layer) {
  if (layer && *layer >= pager_->layers()) {
    return fail(ErrorCode::kInvalidArgument, "layer " + std::to_string(*layer) + ": the bank's blocks have " +
                                                 std::to_string(pager_->layers()) + " layers");
  }
  std::optional<std::int64_t> stalled_ns;
  while (true) {
    if (lease.cancelled_) return fail(ErrorCode::kCancelled, "the lease was released or replaced");
    const Result<bool> ready = layer ? pager_->ready(lease.id_, *layer) : pager_->ready(lease.id_);
    if (!ready || *ready) {
      if (stalled_ns) {
        const std::int64_t stall_ns = system_clock().now_ns() - *stalled_ns;
        stall_ns_ += stall_ns;
        lease.stall_ns_ += stall_ns;
        stall_latency_ns_.record(stall_ns);
      }
      if (!ready) return tl::make_unexpected(ready.error());
      return {};
    }
    if (!stalled_ns) stalled_ns = system_clock().now_ns();
    // Whoever waits helps: its core has nothing better to do.
    if (!verify_one(lock)) progress_.wait(lock);
  }
}

void BlockingPager::cancel(Lease& lease) {
  lease.cancelled_ = true;
  unregister_source(lease.handle_);
  progress_.notify_all();
}

Result<std::uint64_t> BlockingPager::prefetch(std::span<const Node> nodes) {
  const std::scoped_lock lock(mutex_);
  return pager_->prefetch(nodes);
}

std::uint64_t BlockingPager::shrink(std::uint64_t bytes) {
  const std::scoped_lock lock(mutex_);
  return pager_->shrink(bytes);
}

BlockingPagerStats BlockingPager::stats() const {
  const std::scoped_lock lock(mutex_);
  return {pager_->stats(), stall_ns_, stall_latency_ns_.summary()};
}

std::vector<StorageReport> BlockingPager::storage_reports() const {
  const std::scoped_lock lock(mutex_);
  return pager_->storage_reports();
}

}  // namespace edge
