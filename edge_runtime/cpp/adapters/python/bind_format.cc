// Level files, the tree and the manifest, for Python.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "edge_runtime/bank_level.h"
#include "edge_runtime/bank_writer.h"
#include "edge_runtime/manifest.h"
#include "edge_runtime/tree.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edge::python {
namespace {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const std::int32_t, nb::c_contig, nb::device::cpu>;

template <typename Array>
auto span_of(const Array& array) {
  return std::span(array.data(), array.size());
}

BankLevelWriter make_writer(const std::string& path, std::uint32_t level, std::uint32_t fanout,
                            const std::string& dtype, std::uint32_t d_model, std::uint32_t rows_per_block,
                            std::vector<std::uint32_t> anchor_layers, std::uint64_t rows, const std::string& kind,
                            const std::vector<std::pair<std::string, std::uint64_t>>& tensors) {
  const auto parsed = parse_dtype(dtype);
  if (!parsed) {
    raise({ErrorCode::kInvalidArgument, "unknown bank dtype '" + dtype + "': use f32, f16, bf16, i8 or i4"});
  }
  if (kind == "ffn" && tensors.empty()) {
    const auto spec =
        unwrap(ffn_level_spec(level, fanout, *parsed, d_model, rows_per_block, std::move(anchor_layers), rows));
    return unwrap(BankLevelWriter::create(path, spec));
  }
  std::vector<TensorShape> shapes;
  shapes.reserve(tensors.size());
  for (const auto& [name, columns] : tensors) {
    shapes.push_back({name, rows_per_block, columns});
  }
  const auto spec = unwrap(level_spec(kind, std::move(shapes), level, fanout, *parsed, d_model, rows_per_block,
                                      std::move(anchor_layers), rows));
  return unwrap(BankLevelWriter::create(path, spec));
}

void write_tree_arrays(const std::string& path, std::uint32_t fanout, const std::vector<Floats>& centroids,
                       const std::vector<Ints>& documents) {
  std::vector<std::span<const float>> centroid_spans;
  std::vector<std::span<const std::int32_t>> document_spans;
  for (const Floats& array : centroids) {
    if (array.ndim() != 2 || array.shape(1) != centroids.front().shape(1)) {
      raise({ErrorCode::kInvalidArgument, path + ": centroids are [fanout^level, dim] arrays of one dim"});
    }
    centroid_spans.push_back(span_of(array));
  }
  for (const Ints& array : documents) {
    document_spans.push_back(span_of(array));
  }
  const auto dim = centroids.empty() ? 0 : static_cast<std::uint32_t>(centroids.front().shape(1));
  unwrap(write_tree(path, fanout, dim, centroid_spans, document_spans));
}

// A call of the core that may take long, without the GIL.
template <typename Call>
void unlocked(const Call& call) {
  Status status;
  {
    const nb::gil_scoped_release release;
    status = call();
  }
  unwrap(std::move(status));
}

using NodeList = std::vector<std::pair<std::uint32_t, std::uint64_t>>;

std::vector<Node> nodes_of(const NodeList& pairs) {
  std::vector<Node> nodes;
  nodes.reserve(pairs.size());
  for (const auto& [level, index] : pairs) {
    nodes.push_back({level, index});
  }
  return nodes;
}

auto descend(const Tree& tree, const Floats& embedding, const NodeList& blocked, std::optional<std::uint32_t> depth) {
  Route route = unwrap(tree.descend(span_of(embedding), nodes_of(blocked), depth));
  return std::pair(std::move(route.path), std::move(route.margins));
}

auto rank(const Tree& tree, const Floats& embedding, std::size_t count, const NodeList& blocked,
          std::optional<std::uint32_t> depth) {
  std::vector<std::pair<std::vector<std::uint64_t>, float>> ranked;
  for (RankedPath& one : unwrap(tree.rank(span_of(embedding), count, nodes_of(blocked), depth))) {
    ranked.emplace_back(std::move(one.path), one.conceded);
  }
  return ranked;
}

float conceded(const Tree& tree, const Floats& embedding, const std::vector<std::uint64_t>& path,
               const NodeList& blocked) {
  return unwrap(tree.conceded(span_of(embedding), path, nodes_of(blocked)));
}

}  // namespace

void bind_format(nb::module_& module) {
  nb::class_<BankLevel>(module, "LevelFile", "The header and tables of a level file, validated (docs/bank-format.md).")
      .def(
          "__init__",
          [](BankLevel* self, const std::string& path) { new (self) BankLevel(unwrap(BankLevel::open(path))); },
          "path"_a);

  nb::class_<BankLevelWriter>(
      module, "LevelWriter",
      "Streams blocks to a level file, which appears at finish() (docs/bank-format.md). `tensors`: of a layer of "
      "memory that is not FFN memory, (name, columns) each.")
      .def(
          "__init__",
          [](BankLevelWriter* self, const std::string& path, std::uint32_t level, std::uint32_t fanout,
             const std::string& dtype, std::uint32_t d_model, std::uint32_t rows_per_block,
             std::vector<std::uint32_t> anchor_layers, std::uint64_t rows, const std::string& kind,
             const std::vector<std::pair<std::string, std::uint64_t>>& tensors) {
            new (self) BankLevelWriter(make_writer(path, level, fanout, dtype, d_model, rows_per_block,
                                                   std::move(anchor_layers), rows, kind, tensors));
          },
          "path"_a, "level"_a, "fanout"_a, "dtype"_a, "d_model"_a, "rows_per_block"_a, "anchor_layers"_a, "rows"_a,
          "kind"_a = "ffn", "tensors"_a = std::vector<std::pair<std::string, std::uint64_t>>())
      .def(
          "append",
          [](BankLevelWriter& self, std::uint64_t node, const Floats& block) {
            unwrap(self.append(node, span_of(block)));
          },
          "node"_a, "block"_a, "Quantises and writes one node's block: f32 [layers, tensors, rows_per_block, columns].")
      .def(
          "append_hole", [](BankLevelWriter& self, std::uint64_t node) { unwrap(self.append_hole(node)); }, "node"_a,
          "Gives a node a block of zeros, which a sparse file does not store.")
      .def_static(
          "like",
          [](const std::string& path, const BankLevel& source, std::uint64_t rows) {
            BankLevelSpec spec = source.spec();
            spec.rows = rows;
            return unwrap(BankLevelWriter::create(path, spec));
          },
          "path"_a, "source"_a, "rows"_a, "A writer of the same level, kind, shapes and dtype as `source`.")
      .def(
          "copy",
          [](BankLevelWriter& self, std::uint64_t node, const BankLevel& source) {
            unlocked([&] { return self.copy(node, source); });
          },
          "node"_a, "source"_a, "Writes one node's block as `source` has it, verified on its way.")
      .def(
          "finish", [](BankLevelWriter& self) { unlocked([&] { return self.finish(); }); },
          "Writes the tables and gives the file its name.");

  nb::class_<Tree>(module, "Tree", "The router's tree of centroids (docs/bundle-format.md).")
      .def(
          "__init__", [](Tree* self, const std::string& path) { new (self) Tree(unwrap(Tree::open(path))); }, "path"_a)
      .def_prop_ro("fanout", &Tree::fanout)
      .def_prop_ro("depth", &Tree::depth)
      .def_prop_ro("dim", &Tree::dim)
      .def("descend", &descend, "embedding"_a, "blocked"_a = NodeList(), "depth"_a = nb::none(),
           "Greedy descent of an embedding, f32 [dim]: (node ids from level 1 down, margins).")
      .def("rank", &rank, "embedding"_a, "count"_a, "blocked"_a = NodeList(), "depth"_a = nb::none(),
           "The best paths, each with what it concedes to the nearest nodes, in squared distance.")
      .def("conceded", &conceded, "embedding"_a, "path"_a, "blocked"_a = NodeList(),
           "What a path concedes; infinity where one of its nodes is shut.");

  module.def("write_tree", &write_tree_arrays, "path"_a, "fanout"_a, "centroids"_a, "documents"_a,
             "Writes centroids, f32 [fanout^level, dim] a level, and document counts, i32 [fanout^level] a level.");
  module.def("is_safe_path", &is_safe_path, "path"_a, "Whether a manifest may name the path.");
  module.def(
      "write_file", [](const std::string& path, std::string_view text) { unwrap(write_file(path, text)); }, "path"_a,
      "text"_a, "Makes the text the file's content by one atomic rename, flushed to the device.");
  module.def("validate_manifest", [](std::string_view text) { unwrap(validate_manifest(text)); }, "text"_a);
  module.def(
      "commit_manifest",
      [](const std::string& directory, std::string_view text) { unwrap(commit_manifest(directory, text)); },
      "directory"_a, "text"_a, "Validates the text and makes it directory/manifest.json by one atomic rename.");
}

}  // namespace edge::python
