#include "thread_pool.h"

#include <executorch/runtime/core/function_ref.h>

#include <barrier>
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
bool openmp_is_off = false;  // in the pool as it is

// ATen's BLAS, which the attention kernel calls, keeps OpenMP teams of its own that spin on the pool's cores. OpenMP
// holds the number per thread, so each of the pool's must set its own: tasks that wait for each other are on as many
// threads as there are tasks.
void turn_openmp_off() {
  auto* const pool = ::executorch::extension::threadpool::get_threadpool();
  const auto threads = pool->get_thread_count();
  std::barrier together(static_cast<std::ptrdiff_t>(threads));
  std::mutex one_by_one;
  const auto task = [&](std::size_t /*index*/) {
    together.arrive_and_wait();
    const std::lock_guard lock(one_by_one);
    at::set_num_threads(1);
  };
  pool->run(task, threads);
  openmp_is_off = true;
}

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
  if (threads != thread_count() && users > 0) {
    return fail(ErrorCode::kBusy, "ExecuTorch's thread pool has " + std::to_string(thread_count()) +
                                      " threads and programs in use: close them before asking for " +
                                      std::to_string(threads));
  }
  if (threads != thread_count()) {
    if (!::executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(threads)) {
      return fail(ErrorCode::kIo, "ExecuTorch's thread pool cannot be set to " + std::to_string(threads) + " threads");
    }
    openmp_is_off = false;
  }
  if (!openmp_is_off) {
    turn_openmp_off();
  }
  return {};
}

}  // namespace edge::et
