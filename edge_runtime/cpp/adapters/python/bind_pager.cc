// The pager, its leases and memory_ffn, for Python.
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "edge_runtime/blocking_pager.h"
#include "edge_runtime/lease_registry.h"
#include "edge_runtime/memory_ffn.h"
#include "edge_runtime/tiers.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edge::python {
namespace {

using NodeList = std::vector<std::pair<std::uint32_t, std::uint64_t>>;
using Floats = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;
using Bytes = nb::ndarray<nb::numpy, const std::uint8_t, nb::ndim<1>>;

std::vector<Node> nodes_of(const NodeList& pairs) {
  std::vector<Node> nodes;
  nodes.reserve(pairs.size());
  for (const auto& [level, index] : pairs) nodes.push_back({level, index});
  return nodes;
}

// Waits without the GIL.
template <typename Wait>
auto blocking(const Wait& wait) {
  const nb::gil_scoped_release unlocked;
  return wait();
}

// The block's bytes, in place; they keep the lease.
Bytes bytes_of(const LeasedBlock& block, std::shared_ptr<Lease> source) {
  const auto* const data = reinterpret_cast<const std::uint8_t*>(block.data);
  auto* const holder = new std::shared_ptr<Lease>(std::move(source));
  const nb::capsule owner(holder, [](void* pointer) noexcept { delete static_cast<std::shared_ptr<Lease>*>(pointer); });
  return Bytes(data, {static_cast<std::size_t>(block.spec->stride())}, owner);
}

// What Python holds: the lease until release(), its figures beyond that.
struct PyLease {
  std::shared_ptr<Lease> lease;
  std::int64_t handle = 0;
  std::uint64_t bytes_read = 0;
  std::optional<std::int64_t> fetch_ns;
  std::int64_t stall_ns = 0;

  explicit PyLease(std::shared_ptr<Lease> granted)
      : lease(std::move(granted)), handle(lease->handle()), bytes_read(lease->bytes_read()) {}

  // A copy, so that a release in another thread does not take it away.
  std::shared_ptr<Lease> open() const {
    if (lease == nullptr) raise({ErrorCode::kCancelled, "the lease is released"});
    return lease;
  }

  void wait(std::optional<std::uint64_t> layer) const {
    const auto source = open();
    unwrap(blocking([&] { return layer ? source->wait(*layer) : source->wait(); }));
  }

  std::optional<std::int64_t> elapsed_ns() const { return lease == nullptr ? fetch_ns : lease->fetch_ns(); }
  std::int64_t stalled_ns() const { return lease == nullptr ? stall_ns : lease->stall_ns(); }

  void release() {
    if (lease == nullptr) return;
    fetch_ns = lease->fetch_ns();
    stall_ns = lease->stall_ns();
    lease->cancel();
    lease.reset();
  }

  // The bytes of the block of (level, node), or of the level's only block.
  Bytes view(std::uint32_t level, std::optional<std::uint64_t> node) const {
    auto source = open();
    const auto blocks = unwrap(blocking([&] { return source->blocks(); }));
    const auto wanted = [&](const LeasedBlock& block) {
      return block.node.level == level && (!node || block.node.index == *node);
    };
    const auto count = std::count_if(blocks.begin(), blocks.end(), wanted);
    if (count == 0) {
      raise({ErrorCode::kNotFound, "the lease has no block of level " + std::to_string(level) +
                                       (node ? ", node " + std::to_string(*node) : std::string())});
    }
    if (count > 1) {
      raise({ErrorCode::kInvalidArgument, "the lease has " + std::to_string(count) + " blocks of level " +
                                              std::to_string(level) + ": name the node"});
    }
    return bytes_of(*std::find_if(blocks.begin(), blocks.end(), wanted), std::move(source));
  }

  NodeList nodes() const {
    const auto source = open();
    NodeList pairs;
    for (const LeasedBlock& block : unwrap(blocking([&] { return source->blocks(); }))) {
      pairs.emplace_back(block.node.level, block.node.index);
    }
    return pairs;
  }
};

// A kind, and the device that a level is slowed down to.
using PyTier = std::pair<std::string, std::shared_ptr<ThrottledDevice>>;

Tier tier_of(const PyTier& tier) {
  const auto kind = parse_storage_kind(tier.first);
  if (!kind) {
    raise({ErrorCode::kInvalidArgument, "unknown storage '" + tier.first + "': use auto, direct, mapped or uring"});
  }
  return {.kind = *kind, .throttle = tier.second};
}

std::shared_ptr<ThrottledDevice> make_throttle(double bytes_per_second, double latency_us, std::size_t lanes) {
  if (!(bytes_per_second > 0) || !(latency_us >= 0) || lanes == 0) {
    raise({ErrorCode::kInvalidArgument, "a device needs a bandwidth above 0, a latency of 0 or more, and a lane"});
  }
  return std::make_shared<ThrottledDevice>(SimulatedDevice::Profile{
      .latency_ns = std::llround(latency_us * 1e3), .bytes_per_second = bytes_per_second, .lanes = lanes});
}

std::shared_ptr<BlockingPager> open_pager(const std::vector<std::vector<std::string>>& levels, std::uint64_t budget,
                                          const PyTier& others, const std::map<std::uint32_t, PyTier>& tiers,
                                          const NodeList& blocked, const NodeList& removed, bool verify,
                                          const NodeList& pinned, const std::vector<std::uint32_t>& pinned_levels) {
  Tiers storage;
  storage.others = tier_of(others);
  for (const auto& [level, tier] : tiers) storage.levels[level] = tier_of(tier);
  PagerOptions options;
  options.budget = budget;
  options.verify = verify;
  options.blocked = nodes_of(blocked);
  options.removed = nodes_of(removed);
  options.pinned = nodes_of(pinned);
  options.pinned_levels = pinned_levels;
  return unwrap(blocking([&] { return BlockingPager::open(levels, storage, options); }));
}

PyLease fetch(BlockingPager& pager, const NodeList& nodes, PyLease* replacing) {
  if (replacing == nullptr) return PyLease(unwrap(blocking([&] { return pager.fetch(nodes_of(nodes)); })));
  if (replacing->lease == nullptr) raise({ErrorCode::kCancelled, "the lease to replace is released"});
  // With the GIL: no other thread of Python may release `replacing` meanwhile. It does not wait for the device.
  auto lease = unwrap(pager.fetch(nodes_of(nodes), replacing->lease));
  replacing->release();
  return PyLease(std::move(lease));
}

nb::dict percentiles(const LatencySummary& summary) {
  nb::dict dict;
  dict["count"] = summary.count;
  dict["p50"] = summary.p50;
  dict["p90"] = summary.p90;
  dict["p99"] = summary.p99;
  dict["p999"] = summary.p999;
  dict["max"] = summary.max;
  return dict;
}

nb::dict stats(const BlockingPager& pager) {
  const BlockingPagerStats all = blocking([&] { return pager.stats(); });
  const PagerStats& figures = all.pager;
  nb::list levels;
  for (const LevelStats& level : figures.levels) {
    nb::dict dict;
    dict["level"] = level.level;
    dict["resident_bytes"] = level.resident_bytes;
    dict["hits"] = level.hits;
    dict["misses"] = level.misses;
    dict["bytes_read"] = level.bytes_read;
    dict["evictions"] = level.evictions;
    levels.append(dict);
  }
  nb::dict dict;
  dict["budget_bytes"] = figures.budget_bytes;
  dict["resident_bytes"] = figures.resident_bytes;
  dict["in_flight_bytes"] = figures.in_flight_bytes;
  dict["peak_bytes"] = figures.peak_bytes;
  dict["leased_bytes"] = figures.leased_bytes;
  dict["pinned_bytes"] = figures.pinned_bytes;
  dict["leases"] = figures.leases;
  dict["fetches"] = figures.fetches;
  dict["hits"] = figures.hits;
  dict["misses"] = figures.misses;
  dict["bytes_read"] = figures.bytes_read;
  dict["evictions"] = figures.evictions;
  dict["requests"] = figures.requests;
  dict["rereads"] = figures.rereads;
  dict["failures"] = figures.failures;
  dict["prefetches"] = figures.prefetches;
  dict["prefetch_hits"] = figures.prefetch_hits;
  dict["stall_ns"] = all.stall_ns;
  dict["fetch_latency_ns"] = percentiles(figures.fetch_latency_ns);
  dict["stall_latency_ns"] = percentiles(all.stall_latency_ns);
  dict["levels"] = levels;
  return dict;
}

nb::list storage_report(const BlockingPager& pager) {
  nb::list reports;
  for (const StorageReport& report : pager.storage_reports()) {
    nb::dict dict;
    dict["path"] = report.path;
    dict["backend"] = report.backend;
    dict["reason"] = report.reason;
    reports.append(dict);
  }
  return reports;
}

Matrix memory_ffn_of(const Floats& x, std::int64_t handle, std::uint32_t layer) {
  const std::size_t tokens = x.shape(0);
  const std::size_t d = x.shape(1);
  auto y = std::make_unique<float[]>(tokens * d);
  unwrap(blocking([&]() -> Status {
    const auto source = find_source(handle);
    if (!source) return tl::make_unexpected(source.error());
    if (layer >= (*source)->layers() || d != (*source)->d_model()) {
      return fail(ErrorCode::kInvalidArgument, "layer " + std::to_string(layer) + " at width " + std::to_string(d) +
                                                   ": the lease has " + std::to_string((*source)->layers()) +
                                                   " layers of width " + std::to_string((*source)->d_model()));
    }
    std::vector<MemoryRows> rows;
    if (auto arrived = (*source)->layer(layer, rows); !arrived) return arrived;
    std::vector<float> scratch(memory_ffn_scratch(rows, tokens, d));
    memory_ffn(rows, x.data(), tokens, d, y.get(), scratch);
    return {};
  }));
  float* const data = y.release();
  const nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<float*>(pointer); });
  return Matrix(data, {tokens, d}, owner);
}

nb::list leased_blocks(std::int64_t handle) {
  const auto source = std::dynamic_pointer_cast<Lease>(unwrap(find_source(handle)));
  if (source == nullptr) raise({ErrorCode::kInvalidArgument, "the handle is not that of a lease"});
  nb::list found;
  for (const LeasedBlock& block : unwrap(blocking([&] { return source->blocks(); }))) {
    found.append(nb::make_tuple(block.node.level, block.node.index, bytes_of(block, source)));
  }
  return found;
}

}  // namespace

void bind_pager(nb::module_& module) {
  nb::class_<PyLease>(module, "Lease", "Blocks kept in memory until release(). Views keep them beyond it.")
      .def_prop_ro(
          "handle", [](const PyLease& self) { return self.handle; }, "What programs take as `memory`; never 0.")
      .def_prop_ro(
          "bytes_read", [](const PyLease& self) { return self.bytes_read; }, "Bytes that this fetch caused to be read.")
      .def_prop_ro("fetch_ns", &PyLease::elapsed_ns,
                   "Nanoseconds from fetch to the last byte verified; None until then.")
      .def_prop_ro("stall_ns", &PyLease::stalled_ns,
                   "Nanoseconds that threads have spent waiting for its layers, added up.")
      .def_prop_ro("released", [](const PyLease& self) { return self.lease == nullptr; })
      .def("nodes", &PyLease::nodes, "The (level, node) of each block, once all have arrived.")
      .def("wait", &PyLease::wait, "layer"_a = nb::none(),
           "Blocks, without the GIL, until one layer or all have arrived and are verified.")
      .def("view", &PyLease::view, "level"_a, "node"_a = nb::none(),
           "Read-only u8 [stride] of a block, in place, once it has arrived.")
      .def("release", &PyLease::release, "Ends the lease and all waits on it. May be called again.")
      .def("__enter__", [](nb::handle self) { return nb::borrow(self); })
      .def(
          "__exit__", [](PyLease& self, const nb::object&, const nb::object&, const nb::object&) { self.release(); },
          "type"_a.none(), "value"_a.none(), "traceback"_a.none());

  nb::class_<ThrottledDevice>(module, "ThrottledDevice", "A device that levels are slowed down to, for measurements.")
      .def(nb::new_(&make_throttle), "bytes_per_second"_a, "latency_us"_a = 0.0, "lanes"_a = kDefaultLanes);

  nb::class_<BlockingPager>(module, "Pager", "Brings blocks of a bank into memory under a hard budget. Thread-safe.")
      .def(nb::new_(&open_pager), "levels"_a, "budget"_a, "storage"_a, "tiers"_a, "blocked"_a, "removed"_a, "verify"_a,
           "pinned"_a, "pinned_levels"_a)
      .def("fetch", &fetch, "nodes"_a, "replacing"_a.none() = nb::none(),
           "A lease on the blocks of (level, node) pairs; reads begin, the lease waits.")
      .def(
          "prefetch",
          [](BlockingPager& self, const NodeList& nodes) {
            return unwrap(blocking([&] { return self.prefetch(nodes_of(nodes)); }));
          },
          "nodes"_a, "Hints that the nodes may be fetched soon; returns the bytes that will be read.")
      .def(
          "shrink",
          [](BlockingPager& self, std::uint64_t bytes) { return blocking([&] { return self.shrink(bytes); }); },
          "bytes"_a, "Evicts unleased blocks; returns the bytes freed.")
      .def("stats", &stats)
      .def("storage_report", &storage_report)
      .def_prop_ro("layers", &BlockingPager::layers)
      .def_prop_ro("d_model", &BlockingPager::d_model);

  module.def("memory_ffn", &memory_ffn_of, "x"_a, "handle"_a, "layer"_a,
             "f32 [T, d] of the memory FFN of one layer of the lease that the handle names.");
  module.def("leased_blocks", &leased_blocks, "handle"_a,
             "(level, node, read-only u8 [stride] in place) of each block of the lease that the handle names, once all "
             "have arrived. The lease cannot be replaced while the arrays live.");
}

}  // namespace edge::python
