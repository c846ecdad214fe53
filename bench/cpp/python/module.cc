// edge_bench._native: the raw reader, the page cache's contents, and the pager driven without Python in between.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bind_simulator.h"
#include "bindings.h"
#include "edge_runtime/blocking_pager.h"
#include "edge_runtime/clock.h"
#include "kernel_stream.h"
#include "raw_reader.h"
#include "read_bandwidth.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edge::bench {
namespace {

using python::raise;
using python::unwrap;
using RangeList = std::vector<std::tuple<std::size_t, std::uint64_t, std::uint64_t>>;
using NodeList = std::vector<std::pair<std::uint32_t, std::uint64_t>>;
using Bytes = nb::ndarray<nb::numpy, const std::uint8_t, nb::ndim<1>>;

template <typename Call>
auto without_gil(const Call& call) {
  const nb::gil_scoped_release unlocked;
  return call();
}

std::unique_ptr<RawReader> open_raw(const std::vector<std::string>& paths, const std::string& engine,
                                    std::uint64_t chunk_bytes, unsigned depth, bool fresh, std::uint64_t capacity) {
  const auto parsed = parse_raw_engine(engine);
  if (!parsed) raise({ErrorCode::kInvalidArgument, "unknown engine '" + engine + "': use pread or io_uring"});
  const RawOptions options{.engine = *parsed, .chunk_bytes = chunk_bytes, .depth = depth, .fresh = fresh};
  return unwrap(without_gil([&] { return RawReader::open(paths, options, capacity); }));
}

Bytes read_raw(RawReader& reader, const RangeList& list) {
  std::vector<Range> ranges;
  ranges.reserve(list.size());
  for (const auto& [file, offset, length] : list) ranges.push_back({file, offset, length});
  const auto bytes = unwrap(without_gil([&] { return reader.read(ranges); }));
  // The reader's own memory: the caller keeps the reader, and looks before the next read.
  return Bytes(reinterpret_cast<const std::uint8_t*>(bytes.data()), {bytes.size()}, nb::find(&reader));
}

// A pager that is timed from C++: what a caller without Python would see.
class PagerProbe {
 public:
  PagerProbe(const std::vector<std::string>& paths, const std::string& storage, std::uint64_t budget, bool verify,
             unsigned lanes) {
    const auto kind = parse_storage_kind(storage);
    if (!kind) raise({ErrorCode::kInvalidArgument, "unknown storage '" + storage + "'"});
    PagerOptions options;
    options.budget = budget;
    options.verify = verify;
    std::vector<std::vector<std::string>> levels;
    for (const std::string& path : paths) levels.push_back({path});
    pager_ = unwrap(
        without_gil([&] { return BlockingPager::open(levels, *kind, options, {.lanes = lanes, .depth = lanes}); }));
  }

  // Nanoseconds of each of `count` times fetch, wait and release.
  std::vector<std::int64_t> fetch(const NodeList& list, std::uint64_t count) {
    std::vector<Node> nodes;
    nodes.reserve(list.size());
    for (const auto& [level, index] : list) nodes.push_back({level, index});
    return unwrap(without_gil([&]() -> Result<std::vector<std::int64_t>> {
      std::vector<std::int64_t> times;
      times.reserve(count);
      for (std::uint64_t i = 0; i < count; ++i) {
        const std::int64_t start_ns = system_clock().now_ns();
        auto lease = pager_->fetch(nodes);
        if (!lease) return tl::make_unexpected(lease.error());
        if (auto arrived = (*lease)->wait(); !arrived) return tl::make_unexpected(arrived.error());
        lease->reset();
        times.push_back(system_clock().now_ns() - start_ns);
      }
      return times;
    }));
  }

  std::uint64_t shrink(std::uint64_t bytes) {
    return without_gil([&] { return pager_->shrink(bytes); });
  }

 private:
  std::shared_ptr<BlockingPager> pager_;
};

double share(const std::string& path, std::uint64_t offset, std::uint64_t length) {
  return unwrap(without_gil([&] { return page_cache_share(path, offset, length); }));
}

std::vector<double> stream(const std::vector<std::int64_t>& handles, unsigned threads, unsigned rounds) {
  return unwrap(without_gil([&] { return kernel_passes(handles, threads, rounds); }));
}

std::vector<double> passes(std::size_t bytes, unsigned threads, unsigned rounds) {
  if (threads == 0 || bytes / 64 < threads) raise({ErrorCode::kInvalidArgument, "a thread reads 64 bytes at least"});
  return without_gil([&] { return read_passes(bytes, threads, rounds); });
}

}  // namespace
}  // namespace edge::bench

NB_MODULE(_native, module) {
  using edge::bench::PagerProbe;
  using edge::bench::RawReader;
  module.doc() = "The benchmarks' native half: bench/cpp.";
  nb::class_<RawReader>(module, "RawReader", "Reads ranges of files with O_DIRECT; one thread's own.")
      .def(nb::new_(&edge::bench::open_raw), "paths"_a, "engine"_a, "chunk_bytes"_a, "depth"_a, "fresh"_a, "capacity"_a)
      .def("read", &edge::bench::read_raw, "ranges"_a, "The (file, offset, length) ranges, valid until the next read.")
      .def("forget", &RawReader::forget, "Gives fresh memory back.");
  nb::class_<PagerProbe>(module, "PagerProbe", "A pager timed from C++.")
      .def(nb::init<const std::vector<std::string>&, const std::string&, std::uint64_t, bool, unsigned>(), "paths"_a,
           "storage"_a, "budget"_a, "verify"_a, "lanes"_a)
      .def("fetch", &PagerProbe::fetch, "nodes"_a, "count"_a, "Nanoseconds of each fetch, wait and release.")
      .def("shrink", &PagerProbe::shrink, "bytes"_a);
  module.def("page_cache_share", &edge::bench::share, "path"_a, "offset"_a, "length"_a,
             "The share of a range's pages that the page cache holds.");
  module.def("read_passes", &edge::bench::passes, "bytes"_a, "threads"_a, "rounds"_a,
             "Seconds of each pass over so many bytes of memory.");
  module.def("kernel_passes", &edge::bench::stream, "handles"_a, "threads"_a, "rounds"_a,
             "Seconds of each pass of memory_ffn over all layers of leases that have arrived.");
  module.def("has_io_uring", &edge::bench::has_uring);
  edge::bench::bind_simulator(module);
}
