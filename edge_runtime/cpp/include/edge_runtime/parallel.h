// How a kernel uses more than one core: through the engine's own threads, so that no second pool fights with them.
#pragma once

#include <cstddef>

namespace edge {

// A callable void(std::size_t) that somebody else keeps alive; making one allocates nothing.
class TaskRef {
 public:
  template <typename Task>
  TaskRef(const Task& task)  // implicit: run(n, [&](std::size_t i) { ... })
      : task_(&task), call_([](const void* of, std::size_t index) { (*static_cast<const Task*>(of))(index); }) {}
  void operator()(std::size_t index) const { call_(task_, index); }

 private:
  const void* task_;
  void (*call_)(const void*, std::size_t);
};

class Parallel {
 public:
  Parallel() = default;
  Parallel(const Parallel&) = delete;
  Parallel& operator=(const Parallel&) = delete;
  virtual ~Parallel() = default;
  // How many threads take part, the caller included: a hint for the size of tasks, never for what is computed.
  virtual std::size_t threads() const = 0;
  // Calls task(i) once for every i < count, in any order and on any threads, and returns when all calls have.
  // The tasks must not call run() themselves.
  virtual void run(std::size_t count, TaskRef task) = 0;
};

// The calling thread alone.
Parallel& serial();

}  // namespace edge
