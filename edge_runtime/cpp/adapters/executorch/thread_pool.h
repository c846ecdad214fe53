// Counts who holds on to ExecuTorch's process-wide thread pool: it can be resized only while nobody does.
#pragma once

namespace edge::et {

class ThreadPoolUse {
 public:
  ThreadPoolUse();
  ~ThreadPoolUse();
  ThreadPoolUse(const ThreadPoolUse&) = delete;
  ThreadPoolUse& operator=(const ThreadPoolUse&) = delete;
};

}  // namespace edge::et
