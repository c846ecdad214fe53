#include "edge_runtime/storage_simulated.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "edge_runtime/dtype.h"

namespace edge {

namespace {

void free_pages(void* /*owner*/, std::byte* data, std::uint64_t /*length*/) {
  ::operator delete(data, std::align_val_t(kPage));
}

}  // namespace

SimulatedDevice::SimulatedDevice(const Clock& clock, Profile profile)
    : clock_(clock), profile_(profile), lane_free_ns_(profile.lanes, 0) {}

std::int64_t SimulatedDevice::schedule(std::uint64_t length) {
  const auto lane = std::min_element(lane_free_ns_.begin(), lane_free_ns_.end());
  const std::int64_t found = std::max(*lane, now_ns()) + profile_.latency_ns;
  const auto transfer_ns = static_cast<std::int64_t>(static_cast<double>(length) / profile_.bytes_per_second * 1e9);
  link_free_ns_ = std::max(link_free_ns_, found) + transfer_ns;
  *lane = link_free_ns_;
  return link_free_ns_;
}

SimulatedStorage::SimulatedStorage(std::string path, std::vector<std::byte> file,
                                   std::shared_ptr<SimulatedDevice> device)
    : report_{std::move(path), "simulated", "a file in memory behind a simulated device"},
      file_(std::move(file)),
      device_(std::move(device)) {}

Result<Buffer> SimulatedStorage::acquire(std::uint64_t /*offset*/, std::uint64_t length) {
  auto* const data = static_cast<std::byte*>(::operator new(length, std::align_val_t(kPage), std::nothrow));
  if (data == nullptr) return fail(ErrorCode::kIo, report_.path + ": no memory for a block");
  return Buffer(data, BufferRelease{free_pages, nullptr, length});
}

void SimulatedStorage::submit(const ReadRequest& request) {
  pending_.push_back({request, device_->schedule(request.length)});
}

void SimulatedStorage::poll(std::vector<Completion>& completions) {
  const auto due = [this](const Pending& pending) { return pending.due_ns <= device_->now_ns(); };
  for (const Pending& pending : pending_) {
    if (!due(pending)) continue;
    const ReadRequest& request = pending.request;
    if (request.offset + request.length > file_.size()) {
      completions.push_back({request.tag, fail(ErrorCode::kTruncated, report_.path + ": ends inside a block")});
      continue;
    }
    std::memcpy(request.destination, file_.data() + request.offset, request.length);
    completions.push_back({request.tag, {}});
  }
  std::erase_if(pending_, due);
}

std::optional<std::int64_t> SimulatedStorage::next_completion_ns() const {
  if (pending_.empty()) return std::nullopt;
  const auto first = std::min_element(pending_.begin(), pending_.end(),
                                      [](const Pending& a, const Pending& b) { return a.due_ns < b.due_ns; });
  return first->due_ns;
}

}  // namespace edge
