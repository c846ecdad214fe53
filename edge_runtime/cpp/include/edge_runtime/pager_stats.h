// What a pager tells about itself.
#pragma once

#include <cstdint>
#include <vector>

#include "edge_runtime/histogram.h"

namespace edge {

struct LevelStats {
  std::uint32_t level = 0;
  std::uint64_t resident_bytes = 0;  // blocks that have wholly arrived
  std::uint64_t hits = 0;            // blocks that a fetch found resident or in flight
  std::uint64_t misses = 0;          // blocks that a fetch had to have read
  std::uint64_t bytes_read = 0;      // of completed reads, for fetches, hints and pins
  std::uint64_t evictions = 0;       // blocks
};

struct PagerStats {
  std::uint64_t budget_bytes = 0;
  std::uint64_t resident_bytes = 0;   // blocks that have wholly arrived
  std::uint64_t in_flight_bytes = 0;  // blocks that have memory and are still being read
  std::uint64_t peak_bytes = 0;       // the most that the two have been together
  std::uint64_t leased_bytes = 0;     // blocks that leases use
  std::uint64_t pinned_bytes = 0;     // kept for pinned blocks, loaded or not
  std::uint64_t leases = 0;           // open now
  std::uint64_t fetches = 0;          // granted
  std::uint64_t hits = 0;             // these four: the sums of the levels
  std::uint64_t misses = 0;
  std::uint64_t bytes_read = 0;
  std::uint64_t evictions = 0;
  std::uint64_t requests = 0;       // reads given to a storage
  std::uint64_t rereads = 0;        // layers read again after a checksum mismatch
  std::uint64_t failures = 0;       // blocks that ended in an error
  std::uint64_t prefetches = 0;     // blocks that hints have begun to read
  std::uint64_t prefetch_hits = 0;  // of these, blocks that a fetch then found
  LatencySummary fetch_latency_ns;  // from a fetch that found a block missing or in flight to its last verified byte
  std::vector<LevelStats> levels;   // ascending
};

}  // namespace edge
