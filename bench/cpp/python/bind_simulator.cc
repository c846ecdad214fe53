#include "bind_simulator.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "edge_runtime/dtype.h"
#include "simulator.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edge::bench {
namespace {

using python::raise;
using python::unwrap;
using NodeList = std::vector<std::pair<std::uint32_t, std::uint64_t>>;
// level, fanout, dtype, d_model, rows, layers, device
using LevelTuple =
    std::tuple<std::uint32_t, std::uint32_t, std::string, std::uint32_t, std::uint32_t, std::uint32_t, std::size_t>;
// bytes a second, lanes, (bytes, latency in ns) by size
using DeviceTuple = std::tuple<double, std::size_t, std::vector<std::pair<std::uint64_t, std::int64_t>>>;
// user, pause in ns, path, hints, slowdown
using PromptTuple = std::tuple<std::size_t, std::int64_t, NodeList, NodeList, double>;

std::vector<Node> nodes_of(const NodeList& list) {
  std::vector<Node> nodes;
  nodes.reserve(list.size());
  for (const auto& [level, index] : list) nodes.push_back({level, index});
  return nodes;
}

SimulatedLevel level_of(const LevelTuple& tuple) {
  const auto& [level, fanout, dtype_text, d_model, rows, layers, device] = tuple;
  const auto dtype = parse_dtype(dtype_text);
  if (!dtype) raise({ErrorCode::kInvalidArgument, "unknown dtype '" + dtype_text + "'"});
  std::vector<std::uint32_t> anchor_layers(layers);
  for (std::uint32_t i = 0; i < layers; ++i) anchor_layers[i] = i;
  BankLevelSpec spec = unwrap(ffn_level_spec(level, fanout, *dtype, d_model, rows, std::move(anchor_layers), 0));
  spec.rows = spec.nodes;
  return {std::move(spec), device};
}

SimulatedDevice::Profile device_of(const DeviceTuple& tuple) {
  const auto& [bytes_per_second, lanes, latencies] = tuple;
  SimulatedDevice::Profile profile{.latency_ns = 0, .bytes_per_second = bytes_per_second, .lanes = lanes};
  for (const auto& [bytes, latency_ns] : latencies) profile.by_size.push_back({bytes, latency_ns});
  return profile;
}

nb::dict to_dict(const Outcome& outcome) {
  nb::list served;
  for (const Served& one : outcome.served) {
    served.append(nb::make_tuple(one.fetch_ns, one.stall_ns, one.bytes_read));
  }
  nb::list levels;
  for (const LevelStats& level : outcome.stats.levels) {
    nb::dict dict;
    dict["level"] = level.level;
    dict["hits"] = level.hits;
    dict["misses"] = level.misses;
    dict["bytes_read"] = level.bytes_read;
    dict["evictions"] = level.evictions;
    levels.append(dict);
  }
  nb::dict dict;
  dict["served"] = served;
  dict["levels"] = levels;
  dict["budget_bytes"] = outcome.stats.budget_bytes;
  dict["peak_bytes"] = outcome.stats.peak_bytes;
  dict["bytes_read"] = outcome.stats.bytes_read;
  dict["requests"] = outcome.stats.requests;
  dict["prefetches"] = outcome.stats.prefetches;
  dict["prefetch_hits"] = outcome.stats.prefetch_hits;
  dict["load_bytes"] = outcome.load_bytes;
  dict["leases_given_up"] = outcome.leases_given_up;
  dict["end_ns"] = outcome.end_ns;
  return dict;
}

nb::dict run(const std::vector<LevelTuple>& levels, const std::vector<DeviceTuple>& devices, std::uint64_t budget,
             const std::vector<PromptTuple>& prompts, const std::vector<std::uint32_t>& pinned_levels,
             const std::string& eviction, std::uint64_t chunk_bytes, double verify_bytes_per_second, unsigned verifiers,
             std::int64_t host_ns, std::int64_t layer_compute_ns, bool one_level_at_a_time) {
  SimulationOptions options;
  for (const LevelTuple& level : levels) options.levels.push_back(level_of(level));
  for (const DeviceTuple& device : devices) options.devices.push_back(device_of(device));
  options.budget = budget;
  options.pinned_levels = pinned_levels;
  options.chunk_bytes = chunk_bytes;
  options.eviction = eviction;
  options.verify_bytes_per_second = verify_bytes_per_second;
  options.verifiers = verifiers;
  options.host_ns = host_ns;
  options.layer_compute_ns = layer_compute_ns;
  options.one_level_at_a_time = one_level_at_a_time;
  std::vector<Prompt> asked;
  asked.reserve(prompts.size());
  for (const auto& [user, pause_ns, path, hints, slowdown] : prompts) {
    if (pause_ns < 0 || !(slowdown > 0) || user >= prompts.size()) {
      raise({ErrorCode::kInvalidArgument,
             "a prompt needs a pause of 0 or more, a slowdown above 0, and a user's number"});
    }
    asked.push_back({user, pause_ns, nodes_of(path), nodes_of(hints), slowdown});
  }
  auto outcome = [&] {
    const nb::gil_scoped_release unlocked;
    return simulate(options, asked);
  }();
  return to_dict(unwrap(std::move(outcome)));
}

}  // namespace

void bind_simulator(nb::module_& module) {
  module.def("simulate", &run, "levels"_a, "devices"_a, "budget"_a, "prompts"_a, nb::kw_only(), "pinned_levels"_a,
             "eviction"_a, "chunk_bytes"_a, "verify_bytes_per_second"_a, "verifiers"_a, "host_ns"_a,
             "layer_compute_ns"_a, "one_level_at_a_time"_a,
             "The real pager over simulated devices; what came of each prompt.");
  module.def("eviction_names", &eviction_names, "Of what `simulate` can be told to evict by.");
}

}  // namespace edge::bench
