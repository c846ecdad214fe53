#include "edge_runtime/storage_faulty.h"

#include <string>
#include <utility>

namespace edge {

FaultyStorage::FaultyStorage(std::unique_ptr<Storage> inner, std::vector<Fault> faults, const Clock& clock)
    : inner_(std::move(inner)), faults_(std::move(faults)), clock_(clock), delay_(clock) {}

FaultyStorage::~FaultyStorage() { inner_->drain(); }

void FaultyStorage::add(Fault fault) {
  const std::scoped_lock lock(mutex_);
  faults_.push_back(fault);
}

void FaultyStorage::submit(const ReadRequest& request) {
  under_way_[request.tag] = request;
  inner_->submit(request);
}

void FaultyStorage::set_waker(std::function<void()> waker) {
  delay_.set_waker(waker);
  inner_->set_waker(std::move(waker));
}

void FaultyStorage::poll(std::vector<Completion>& completions) {
  std::vector<Completion> arrived;
  inner_->poll(arrived);
  for (Completion& completion : arrived) {
    const auto node = under_way_.extract(completion.tag);
    const std::int64_t delay_ns = completion.status ? strike(node.mapped(), completion) : 0;
    if (delay_ns > 0) {
      delay_.hold(std::move(completion), clock_.now_ns() + delay_ns);
    } else {
      completions.push_back(std::move(completion));
    }
  }
  delay_.take_due(completions);
}

void FaultyStorage::drain() {
  inner_->drain();
  under_way_.clear();
  delay_.clear();
}

std::int64_t FaultyStorage::strike(const ReadRequest& request, Completion& completion) {
  std::int64_t delay_ns = 0;
  const std::scoped_lock lock(mutex_);
  for (Fault& fault : faults_) {
    const bool covered = fault.offset >= request.offset && fault.offset - request.offset < request.length;
    if (!covered || fault.times == 0) continue;
    --fault.times;
    const std::string where = report().path + ": at " + std::to_string(fault.offset);
    switch (fault.kind) {
      case FaultKind::kIoError:
        completion.status = fail(ErrorCode::kIo, where + ": Input/output error (injected)");
        break;
      case FaultKind::kShortRead:
        completion.status = fail(ErrorCode::kTruncated, where + ": the file ends (injected)");
        break;
      case FaultKind::kBitFlip:
        request.destination[fault.offset - request.offset] ^= std::byte{1};
        break;
      case FaultKind::kDelay:
        delay_ns += fault.delay_ns;
        break;
    }
  }
  return delay_ns;
}

}  // namespace edge
