#include "edge_runtime/storage_faulty.h"

#include <string>
#include <utility>

namespace edge {

FaultyStorage::FaultyStorage(std::unique_ptr<Storage> inner, std::vector<Fault> faults)
    : inner_(std::move(inner)), faults_(std::move(faults)) {}

FaultyStorage::~FaultyStorage() { inner_->drain(); }

void FaultyStorage::add(Fault fault) {
  const std::scoped_lock lock(mutex_);
  faults_.push_back(fault);
}

void FaultyStorage::submit(const ReadRequest& request) {
  under_way_[request.tag] = request;
  inner_->submit(request);
}

void FaultyStorage::poll(std::vector<Completion>& completions) {
  const std::size_t before = completions.size();
  inner_->poll(completions);
  for (std::size_t i = before; i < completions.size(); ++i) {
    const auto node = under_way_.extract(completions[i].tag);
    if (completions[i].status) strike(node.mapped(), completions[i]);
  }
}

void FaultyStorage::drain() {
  inner_->drain();
  under_way_.clear();
}

void FaultyStorage::strike(const ReadRequest& request, Completion& completion) {
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
    }
  }
}

}  // namespace edge
