// The native engine, for Python.
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "edge_runtime/native.h"
#include "edge_runtime/native_writer.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edge::python {
namespace {

using Rows = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using TokenIds = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<nb::numpy, float, nb::ndim<1>>;

// A context with its lock: Python threads share objects freely, a NativeContext takes one call at a time.
class PyContext {
 public:
  explicit PyContext(std::shared_ptr<NativeModel> model) : context_(std::move(model)) {}

  Logits forward(const TokenIds& tokens, std::int64_t memory) {
    std::unique_ptr<float[]> copy;
    std::size_t size = 0;
    Status status;
    {
      const nb::gil_scoped_release release;
      const std::scoped_lock lock(mutex_);
      const auto logits = context_.forward(std::span(tokens.data(), tokens.size()), memory);
      if (logits) {
        size = logits->size();
        copy = std::make_unique<float[]>(size);
        std::copy(logits->begin(), logits->end(), copy.get());
      } else {
        status = tl::make_unexpected(logits.error());
      }
    }
    unwrap(std::move(status));
    float* const data = copy.release();
    const nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<float*>(pointer); });
    return Logits(data, {size}, owner);
  }
  std::size_t position() {
    const std::scoped_lock lock(mutex_);
    return context_.position();
  }
  void rewind(std::size_t position) {
    const std::scoped_lock lock(mutex_);
    if (position > context_.position()) {
      raise({ErrorCode::kInvalidArgument, "position " + std::to_string(position) + ": the cache holds " +
                                              std::to_string(context_.position()) + " tokens"});
    }
    context_.rewind(position);
  }

 private:
  std::mutex mutex_;
  NativeContext context_;
};

std::shared_ptr<NativeModel> open_model(const std::string& path, const std::string& anchor,
                                        std::vector<std::uint32_t> memory_layers, std::size_t threads) {
  const NativeConfig config = unwrap(parse_native_config(anchor, std::move(memory_layers)));
  return unwrap(NativeModel::open(path, config, threads));
}

NativeWriter make_writer(const std::string& path, const std::string& anchor, const std::string& dtype) {
  const NativeConfig config = unwrap(parse_native_config(anchor, {}));
  const auto parsed = parse_dtype(dtype);
  if (!parsed) raise({ErrorCode::kInvalidArgument, path + ": no dtype '" + dtype + "'", 0});
  return unwrap(NativeWriter::create(path, config, *parsed));
}

}  // namespace

void bind_native(nb::module_& module) {
  nb::class_<NativeWriter>(module, "NativeWriter",
                           "Streams an anchor to anchor.native.safetensors, which appears at finish().")
      .def(
          "__init__",
          [](NativeWriter* self, const std::string& path, const std::string& anchor, const std::string& dtype) {
            new (self) NativeWriter(make_writer(path, anchor, dtype));
          },
          "path"_a, "anchor"_a, "dtype"_a, "anchor: the manifest's object as JSON. dtype: of the matrices.")
      .def_prop_ro(
          "tensors",
          [](const NativeWriter& self) {
            std::vector<std::pair<std::string, std::vector<std::uint64_t>>> tensors;
            for (const NativeTensor& tensor : self.tensors()) tensors.emplace_back(tensor.name, tensor.shape);
            return tensors;
          },
          "Name and shape of each tensor, in the order in which their rows are appended.")
      .def(
          "append",
          [](NativeWriter& self, const Rows& rows) { unwrap(self.append(std::span(rows.data(), rows.size()))); },
          "rows"_a, "The next whole rows, f32, of the tensor under way.")
      .def("finish", [](NativeWriter& self) { unwrap(self.finish()); });

  nb::class_<PyContext>(module, "NativeContext", "A KV cache. Calls from several threads run one after another.")
      .def("forward", &PyContext::forward, "tokens"_a, "memory"_a,
           "Appends tokens, i64 [T]; the logits of the last, f32 [vocab_size]. memory: a lease's handle, 0 for none. "
           "Releases the GIL.")
      .def_prop_ro("position", &PyContext::position, "Tokens in the cache.")
      .def("rewind", &PyContext::rewind, "position"_a, "Forgets the tokens from this position on.")
      .def("reset", [](PyContext& self) { self.rewind(0); });

  nb::class_<NativeModel>(module, "NativeModel", "An anchor's weights, mapped, and the threads that work on them.")
      .def(nb::new_(&open_model), "path"_a, "anchor"_a, "memory_layers"_a, "threads"_a,
           "anchor: the manifest's object as JSON. The file must not be truncated in place while in use.")
      .def_prop_ro("kv_bytes", &NativeModel::kv_bytes, "Of a context's cache, full.")
      .def("new_context",
           [](std::shared_ptr<NativeModel> self) { return std::make_unique<PyContext>(std::move(self)); });
}

}  // namespace edge::python
