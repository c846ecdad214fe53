// Prompts over simulated devices: a discrete-event loop around the real pager. The loop owns the clock, the processors
// that verify and the users; which block is read, kept or evicted is the pager's own doing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "edge_runtime/bank_level.h"
#include "edge_runtime/node.h"
#include "edge_runtime/pager_stats.h"
#include "edge_runtime/result.h"
#include "edge_runtime/storage_simulated.h"

namespace edge::bench {

// A whole level: every node has its block.
struct SimulatedLevel {
  BankLevelSpec spec;
  std::size_t device = 0;  // of SimulationOptions::devices
};

struct SimulationOptions {
  std::vector<SimulatedLevel> levels;
  std::vector<SimulatedDevice::Profile> devices;
  std::uint64_t budget = 0;
  std::vector<std::uint32_t> pinned_levels = {};  // loaded before the first prompt
  std::uint64_t chunk_bytes = std::uint64_t{1} << 20;
  std::string eviction = "fading";     // one of eviction_names()
  double verify_bytes_per_second = 0;  // of one processor; 0: layers are not verified
  unsigned verifiers = 1;              // processors
  std::int64_t host_ns = 0;            // from a prompt's path to its first read, and from its last layer to the waiter
  std::int64_t layer_compute_ns = 0;   // of the prefill, a layer: what of the fetch it hides is not a stall
  bool one_level_at_a_time = false;    // a reader that knows no concurrency, as a baseline
};

std::vector<std::string> eviction_names();

struct Prompt {
  std::size_t user = 0;
  std::int64_t pause_ns = 0;  // from when the user's last path was there (from the start, for the first) to this prompt
  std::vector<Node> path;
  std::vector<Node> hints = {};  // given to Pager::prefetch when the path is there
  double slowdown = 1;           // of all devices, from this prompt on
};

struct Served {
  std::int64_t fetch_ns = 0;  // from the prompt to the last layer
  std::int64_t stall_ns = 0;  // of it, what the prefill has waited
  std::uint64_t bytes_read = 0;
};

struct Outcome {
  std::vector<Served> served;         // as the prompts
  PagerStats stats;                   // at the end, when no read is under way
  std::uint64_t load_bytes = 0;       // read before the first prompt: what is pinned
  std::uint64_t leases_given_up = 0;  // of users between two prompts, for others that found no room
  std::int64_t end_ns = 0;
};

// Each user's prompts come in order and in place of the lease that he holds. A user who finds the budget leased takes
// the oldest lease of those who are between two prompts, or waits. Deterministic. kInvalidArgument: an eviction or a
// device that is not there, figures that are not positive; whatever the pager refuses.
Result<Outcome> simulate(const SimulationOptions& options, const std::vector<Prompt>& prompts);

}  // namespace edge::bench
