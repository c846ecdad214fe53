// Where a program finds the lease that its `memory` input names. A handle is an index with a generation, never a
// pointer: a stale or forged one is an error, not a crash. 0 is never given out: it means "no memory".
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "edge_runtime/memory_ffn.h"
#include "edge_runtime/result.h"

namespace edge {

// What an engine reads memory through; a Lease is one. Safe to call from any thread.
class MemorySource {
 public:
  MemorySource() = default;
  MemorySource(const MemorySource&) = delete;
  MemorySource& operator=(const MemorySource&) = delete;
  virtual ~MemorySource() = default;
  // Blocks until the layer (counted among the layers that carry memory) has arrived and is verified, then fills
  // `rows` with one entry a block. The pointers stay valid as long as the caller holds the source: whoever computes
  // with them keeps the shared_ptr that find_source gave.
  virtual Status layer(std::uint32_t layer, std::vector<MemoryRows>& rows) = 0;
  virtual std::uint32_t layers() const = 0;
  virtual std::uint32_t d_model() const = 0;
};

// The process's registry. Thread-safe. It does not own the sources: one that is gone is a stale handle, unregistered or
// not.
std::int64_t register_source(const std::shared_ptr<MemorySource>& source);
void unregister_source(std::int64_t handle);                             // an unknown handle is ignored
Result<std::shared_ptr<MemorySource>> find_source(std::int64_t handle);  // kStaleHandle

}  // namespace edge
