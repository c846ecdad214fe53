#include "edge_runtime/storage_throttled.h"

namespace edge {

ThrottledStorage::ThrottledStorage(std::unique_ptr<Storage> inner, std::shared_ptr<ThrottledDevice> device)
    : inner_(std::move(inner)), device_(std::move(device)), report_(inner_->report()), delay_(system_clock()) {
  report_.reason += "; throttled";
}

ThrottledStorage::~ThrottledStorage() { inner_->drain(); }

void ThrottledStorage::submit(const ReadRequest& request) {
  due_ns_[request.tag] = device_->schedule(request.length);
  inner_->submit(request);
}

void ThrottledStorage::poll(std::vector<Completion>& completions) {
  std::vector<Completion> arrived;
  inner_->poll(arrived);
  for (Completion& completion : arrived) {
    const std::int64_t due_ns = due_ns_.extract(completion.tag).mapped();
    delay_.hold(std::move(completion), due_ns);
  }
  delay_.take_due(completions);
}

void ThrottledStorage::drain() {
  inner_->drain();
  due_ns_.clear();
  delay_.clear();
}

void ThrottledStorage::set_waker(std::function<void()> waker) {
  delay_.set_waker(waker);
  inner_->set_waker(std::move(waker));
}

}  // namespace edge
