#include "thread_pool.h"

#include <executorch/runtime/core/function_ref.h>

#include <cstdint>
#include <mutex>
#include <string>

#include "program.h"

// The wheel exports these but does not ship their headers whole (threadpool.h includes pthreadpool.h; ATen's are in
// another package), so the parts that are used are declared here, as of version 1.4.1.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  std::size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(std::uint32_t num_threads);  // NOLINT(readability-identifier-naming)
  void run(runtime::FunctionRef<void(std::size_t)> fn, std::size_t range);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace at {
void set_num_threads(int count);
}

namespace edge::et {
namespace {

std::mutex mutex;
std::size_t users = 0;

class EngineThreads final : public Parallel {
 public:
  std::size_t threads() const override {
    return ::executorch::extension::threadpool::get_threadpool()->get_thread_count();
  }
  void run(std::size_t count, TaskRef task) override {
    ::executorch::extension::threadpool::get_threadpool()->run(task, count);
  }
};

}  // namespace

Parallel& engine_threads() {
  static EngineThreads threads;
  return threads;
}

ThreadPoolUse::ThreadPoolUse() {
  const std::lock_guard lock(mutex);
  ++users;
}

ThreadPoolUse::~ThreadPoolUse() {
  const std::lock_guard lock(mutex);
  --users;
}

std::uint32_t thread_count() {
  return static_cast<std::uint32_t>(::executorch::extension::threadpool::get_threadpool()->get_thread_count());
}

Status set_thread_count(std::uint32_t threads) {
  const std::lock_guard lock(mutex);
  // ATen's BLAS, which the attention kernel calls, keeps OpenMP workers of its own that spin on the other cores.
  at::set_num_threads(1);
  if (threads == thread_count()) {
    return {};
  }
  if (users > 0) {
    return fail(ErrorCode::kBusy, "ExecuTorch's thread pool has " + std::to_string(thread_count()) +
                                      " threads and programs in use: close them before asking for " +
                                      std::to_string(threads));
  }
  if (!::executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(threads)) {
    return fail(ErrorCode::kIo, "ExecuTorch's thread pool cannot be set to " + std::to_string(threads) + " threads");
  }
  return {};
}

}  // namespace edge::et
