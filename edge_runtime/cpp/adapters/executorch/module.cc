// edge_runtime._executorch: programs and methods for Python, on arrays; the torch package is never imported.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "failure.h"
#include "program.h"

namespace nb = nanobind;

namespace edge::et {
namespace {

using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using OwnedArray = nb::ndarray<nb::numpy>;

using edge::python::raise;
using edge::python::unwrap;

TensorView view(const Array& array, std::size_t index) {
  const bool f32 = array.dtype() == nb::dtype<float>();
  if (!f32 && array.dtype() != nb::dtype<std::int64_t>()) {
    raise({ErrorCode::kInvalidArgument, "input " + std::to_string(index) + " is neither float32 nor int64", 0});
  }
  TensorView result{f32 ? ElementType::kF32 : ElementType::kI64, {}, array.data()};
  for (std::size_t i = 0; i < array.ndim(); ++i) {
    result.shape.push_back(static_cast<std::int32_t>(array.shape(i)));
  }
  return result;
}

// The method overwrites its outputs in the next call, so Python gets a copy.
OwnedArray copy(const TensorView& output) {
  std::vector<std::size_t> shape(output.shape.begin(), output.shape.end());
  std::size_t bytes = element_bytes(output.type);
  for (const std::size_t extent : shape) {
    bytes *= extent;
  }
  auto* data = new std::byte[bytes];
  const nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<std::byte*>(pointer); });
  std::memcpy(data, output.data, bytes);
  const auto dtype = output.type == ElementType::kF32 ? nb::dtype<float>() : nb::dtype<std::int64_t>();
  return OwnedArray(data, shape.size(), shape.data(), owner, nullptr, dtype);
}

// A method with its lock: Python threads share objects freely, a Method takes one call at a time.
class PyMethod {
 public:
  explicit PyMethod(std::unique_ptr<Method> method) : method_(std::move(method)) {}

  std::vector<OwnedArray> execute(const std::vector<Array>& inputs) {
    std::vector<TensorView> views;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      views.push_back(view(inputs[i], i));
    }
    std::unique_lock lock(mutex_, std::defer_lock);
    Result<std::vector<TensorView>> outputs;
    {
      const nb::gil_scoped_release release;
      lock.lock();
      outputs = method_->execute(views);
    }
    std::vector<OwnedArray> arrays;
    for (const TensorView& output : unwrap(std::move(outputs))) {
      arrays.push_back(copy(output));
    }
    return arrays;
  }

  std::uint64_t planned_bytes() const { return method_->planned_bytes(); }

 private:
  std::mutex mutex_;
  std::unique_ptr<Method> method_;
};

class PyProgram {
 public:
  PyProgram(const std::string& path, std::uint32_t threads) {
    Result<std::shared_ptr<const Program>> program;
    {
      const nb::gil_scoped_release release;
      if (threads > 0) {
        if (auto status = set_thread_count(threads); !status) {
          program = tl::make_unexpected(std::move(status.error()));
        }
      }
      if (program) {
        program = Program::load(path);
      }
    }
    program_ = unwrap(std::move(program));
  }

  std::vector<std::string> method_names() const { return program_->method_names(); }

  std::unique_ptr<PyMethod> load_method(const std::string& name) const {
    Result<std::unique_ptr<Method>> method;
    {
      const nb::gil_scoped_release release;
      method = Method::load(program_, name);
    }
    return std::make_unique<PyMethod>(unwrap(std::move(method)));
  }

 private:
  std::shared_ptr<const Program> program_;
};

}  // namespace
}  // namespace edge::et

NB_MODULE(_executorch, module) {
  using namespace edge::et;
  install_log_capture();
  module.doc() = "ExecuTorch programs on numpy arrays, with edge::memory_ffn registered.";
  module.def("thread_count", &thread_count, "Threads of the process's one ExecuTorch pool, the caller's included.");

  nb::class_<PyMethod>(module, "Method",
                       "One loaded method with its own state. Calls from several threads run one after another.")
      .def("execute", &PyMethod::execute, nb::arg("inputs"),
           "Runs once on float32 and int64 arrays and returns copies of the outputs. Releases the GIL. Raises "
           "EdgeRuntimeError: the core's own error where an operator met one, e.g. ChecksumError.")
      .def_prop_ro("planned_bytes", &PyMethod::planned_bytes, "Bytes of state and activations.");

  nb::class_<PyProgram>(module, "Program", "A mapped .pte file; it must not be truncated in place while in use.")
      .def(nb::init<std::string, std::uint32_t>(), nb::arg("path"), nb::arg("threads") = 0,
           "threads: size of the process's one ExecuTorch pool, 0 to leave it as it is. BusyError where it differs "
           "from the pool that loaded methods hold on to.")
      .def("method_names", &PyProgram::method_names)
      .def("load_method", &PyProgram::load_method, nb::arg("name") = "forward");
}
