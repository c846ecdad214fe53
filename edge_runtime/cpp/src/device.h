// What the files of one device share: storage.h tells it to users.
#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "block_memory.h"
#include "edge_runtime/storage.h"
#include "io_ring.h"
#include "read_pool.h"

namespace edge {

class Device {
 public:
  explicit Device(const DeviceOptions& options);

  BlockMemory& memory() { return *memory_; }
  ReadPool& pool() { return pool_; }
  // The ring, made with the first call; else why there is none.
  Result<IoRing*> ring();

 private:
  std::shared_ptr<BlockMemory> memory_;
  ReadPool pool_;
  unsigned depth_;
  std::mutex mutex_;
  std::optional<Result<std::unique_ptr<IoRing>>> ring_;
};

}  // namespace edge
