// What the files of one device share, and the ring that devices share: storage.h tells it to users.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "block_memory.h"
#include "edge_runtime/storage.h"
#include "io_ring.h"
#include "read_pool.h"

namespace edge {

class Ring {
 public:
  // `driven`: the user calls drive() for it; else it has a thread that does.
  explicit Ring(bool driven) : driven_(driven) {}
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring();

  // The ring, made with the first call; else why there is none.
  Result<IoRing*> open();
  // The ring, if open() has made one.
  IoRing* opened();

 private:
  const bool driven_;
  std::mutex mutex_;
  std::optional<Result<std::unique_ptr<IoRing>>> ring_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

class Device {
 public:
  explicit Device(const DeviceOptions& options);

  BlockMemory& memory() { return *memory_; }
  ReadPool& pool() { return pool_; }
  Ring& ring() { return *ring_; }
  unsigned depth() const { return depth_; }

 private:
  std::shared_ptr<BlockMemory> memory_;
  ReadPool pool_;
  std::shared_ptr<Ring> ring_;
  unsigned depth_;
};

}  // namespace edge
