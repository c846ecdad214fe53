// The router's lightweight embedder, for Python.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "bindings.h"
#include "edge_runtime/static_embedder.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edge::python {
namespace {

template <typename T, std::size_t N>
using Array = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Embedding = nb::ndarray<nb::numpy, float, nb::ndim<1>>;

template <typename AnyArray>
auto values(const AnyArray& array) {
  return std::vector<std::remove_cvref_t<decltype(*array.data())>>(array.data(), array.data() + array.size());
}

Embedding embed(const StaticEmbedder& embedder, const Array<std::uint32_t, 1>& ids) {
  auto out = std::make_unique<float[]>(embedder.dim());
  unwrap(embedder.embed(std::span(ids.data(), ids.size()), std::span(out.get(), embedder.dim())));
  float* const data = out.release();
  const nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<float*>(pointer); });
  return Embedding(data, {embedder.dim()}, owner);
}

// The buckets of all n-grams of a length, in their order.
nb::object buckets(const Array<std::uint32_t, 1>& ids, std::size_t length, std::uint64_t rows) {
  if (length == 0 || rows == 0) raise({ErrorCode::kInvalidArgument, "n-grams have a length and buckets"});
  const std::span all(ids.data(), ids.size());
  const std::size_t count = all.size() < length ? 0 : all.size() - length + 1;
  auto found = std::make_unique<std::int64_t[]>(count);
  for (std::size_t i = 0; i < count; ++i) {
    found[i] = static_cast<std::int64_t>(ngram_bucket(all.subspan(i, length), rows));
  }
  std::int64_t* const data = found.release();
  const nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<std::int64_t*>(pointer); });
  return nb::cast(nb::ndarray<nb::numpy, std::int64_t, nb::ndim<1>>(data, {count}, owner));
}

void write(const std::string& path, std::uint32_t order, const Array<std::int8_t, 2>& tokens,
           const Array<float, 1>& token_scales, const Array<std::int8_t, 2>& ngrams,
           const Array<float, 1>& ngram_scales, const Array<float, 2>& map, const Array<float, 1>& bias) {
  if (ngrams.shape(1) != tokens.shape(1) || map.shape(0) != tokens.shape(1)) {
    raise({ErrorCode::kInvalidArgument, path + ": tokens, ngrams and map have different widths"});
  }
  StaticTables tables;
  tables.vocab_size = static_cast<std::uint32_t>(tokens.shape(0));
  tables.width = static_cast<std::uint32_t>(tokens.shape(1));
  tables.dim = static_cast<std::uint32_t>(map.shape(1));
  tables.order = order;
  tables.ngram_rows = static_cast<std::uint32_t>(ngrams.shape(0));
  tables.token_scales = values(token_scales);
  tables.ngram_scales = values(ngram_scales);
  tables.map = values(map);
  tables.bias = values(bias);
  tables.tokens = values(tokens);
  tables.ngrams = values(ngrams);
  unwrap(write_static_embedder(path, tables));
}

}  // namespace

void bind_router(nb::module_& module) {
  nb::class_<StaticEmbedder>(module, "StaticEmbedder",
                             "Token ids to an embedding, by tables (docs/bundle-format.md). Thread-safe.")
      .def(
          "__init__",
          [](StaticEmbedder* self, const std::string& path) {
            new (self) StaticEmbedder(unwrap(StaticEmbedder::open(path)));
          },
          "path"_a)
      .def_prop_ro("vocab_size", &StaticEmbedder::vocab_size)
      .def_prop_ro("dim", &StaticEmbedder::dim)
      .def_prop_ro("bytes", &StaticEmbedder::bytes, "What its tables take in memory.")
      .def("embed", &embed, "ids"_a, "f32 [dim], L2-normalised, of token ids, u32 [n].");
  module.def("ngram_buckets", &buckets, "ids"_a, "length"_a, "rows"_a,
             "i64 [n - length + 1]: the row of each n-gram of token ids, u32 [n].");
  module.def("write_static_embedder", &write, "path"_a, "order"_a, "tokens"_a, "token_scales"_a, "ngrams"_a,
             "ngram_scales"_a, "map"_a, "bias"_a,
             "Writes tables: i8 [rows, width] with f32 [rows], the map f32 [width, dim], the bias f32 [dim].");
}

}  // namespace edge::python
