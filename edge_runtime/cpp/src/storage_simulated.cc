#include "edge_runtime/storage_simulated.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <new>
#include <utility>

#include "edge_runtime/dtype.h"

namespace edge {

namespace {

void free_pages(void* /*owner*/, std::byte* data, std::uint64_t /*length*/) {
  ::operator delete(data, std::align_val_t(kPage));
}

void unmap(void* /*owner*/, std::byte* data, std::uint64_t length) { ::munmap(data, length); }

}  // namespace

SimulatedDevice::SimulatedDevice(const Clock& clock, Profile profile)
    : clock_(clock), profile_(std::move(profile)), lane_free_ns_(profile_.lanes, 0) {}

std::int64_t SimulatedDevice::schedule(std::uint64_t length) {
  const auto lane = std::min_element(lane_free_ns_.begin(), lane_free_ns_.end());
  const std::int64_t found = std::max(*lane, now_ns()) + static_cast<std::int64_t>(factor_ * latency_ns(length));
  const auto transfer_ns =
      static_cast<std::int64_t>(factor_ * static_cast<double>(length) / profile_.bytes_per_second * 1e9);
  link_free_ns_ = std::max(link_free_ns_, found) + transfer_ns;
  *lane = link_free_ns_;
  return link_free_ns_;
}

double SimulatedDevice::latency_ns(std::uint64_t length) const {
  const auto& points = profile_.by_size;
  if (points.empty()) return static_cast<double>(profile_.latency_ns);
  const auto above = std::find_if(points.begin(), points.end(), [&](const Latency& at) { return at.bytes >= length; });
  if (above == points.end()) return static_cast<double>(points.back().latency_ns);
  const Latency& high = *above;
  if (above == points.begin()) return static_cast<double>(high.latency_ns);
  const Latency& low = *std::prev(above);
  const double share = static_cast<double>(length - low.bytes) / static_cast<double>(high.bytes - low.bytes);
  return static_cast<double>(low.latency_ns) + share * static_cast<double>(high.latency_ns - low.latency_ns);
}

SimulatedStorage::SimulatedStorage(std::string path, std::vector<std::byte> file,
                                   std::shared_ptr<SimulatedDevice> device)
    : report_{std::move(path), "simulated", "a file in memory behind a simulated device"},
      file_(std::move(file)),
      file_bytes_(file_.size()),
      device_(std::move(device)) {}

SimulatedStorage::SimulatedStorage(std::string path, std::uint64_t file_bytes, std::shared_ptr<SimulatedDevice> device)
    : report_{std::move(path), "simulated", "the length of a file behind a simulated device"},
      file_bytes_(file_bytes),
      device_(std::move(device)) {}

Result<Buffer> SimulatedStorage::acquire(std::uint64_t /*offset*/, std::uint64_t length) {
  if (file_.empty()) {
    void* const space = ::mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (space == MAP_FAILED) return fail(ErrorCode::kIo, report_.path + ": no address space for a block");
    return Buffer(static_cast<std::byte*>(space), BufferRelease{unmap, nullptr, length});
  }
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
    if (request.offset + request.length > file_bytes_) {
      completions.push_back({request.tag, fail(ErrorCode::kTruncated, report_.path + ": ends inside a block")});
      continue;
    }
    if (!file_.empty()) std::memcpy(request.destination, file_.data() + request.offset, request.length);
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
