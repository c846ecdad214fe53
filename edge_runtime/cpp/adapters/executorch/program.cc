#include "program.h"

#include <executorch/runtime/backend/backend_options_map.h>
#include <executorch/runtime/backend/options.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdlib>
#include <numeric>
#include <optional>
#include <utility>

#include "failure.h"
#include "mapped_file.h"
#include "thread_pool.h"

namespace edge::et {

namespace rt = ::executorch::runtime;
using ::executorch::aten::ScalarType;

namespace {

// The runtime's own structures for one method: freed together when the method goes.
class GrowingAllocator final : public rt::MemoryAllocator {
 public:
  GrowingAllocator() : rt::MemoryAllocator(0, nullptr) {}

  void* allocate(std::size_t size, std::size_t alignment) override {
    void* data = nullptr;
    if (::posix_memalign(&data, std::max(alignment, sizeof(void*)), std::max<std::size_t>(size, 1)) != 0) {
      return nullptr;
    }
    chunks_.emplace_back(data, &std::free);
    return data;
  }

  void reset() override { chunks_.clear(); }

 private:
  std::vector<std::unique_ptr<void, void (*)(void*)>> chunks_;
};

// Packed weights by content, one copy for all methods: without it every context would pack its own.
rt::LoadBackendOptionsMap share_packed_weights() {
  static rt::BackendOptions<1> options = [] {
    rt::BackendOptions<1> xnnpack;
    (void)xnnpack.set_option("weight_cache_enabled", true);
    return xnnpack;
  }();
  rt::LoadBackendOptionsMap map;
  (void)map.set_options("XnnpackBackend", options.view());
  return map;
}

ErrorCode code_of(rt::Error error) {
  switch (error) {
    case rt::Error::OperatorMissing:
    case rt::Error::NotSupported:
    case rt::Error::NotImplemented:
      return ErrorCode::kUnsupported;
    case rt::Error::InvalidArgument:
    case rt::Error::InvalidType:
      return ErrorCode::kInvalidArgument;
    case rt::Error::NotFound:
      return ErrorCode::kNotFound;
    default:
      return ErrorCode::kBadFormat;
  }
}

std::optional<ElementType> element_type(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return ElementType::kF32;
    case ScalarType::Long:
      return ElementType::kI64;
    default:
      return std::nullopt;
  }
}

// The runtime's view of a TensorView: it wants its shape in three arrays.
struct BorrowedTensor {
  explicit BorrowedTensor(const TensorView& view)
      : sizes(view.shape),
        order(view.shape.size()),
        strides(view.shape.size()),
        impl((std::iota(order.begin(), order.end(), std::uint8_t{0}), fill_strides(),
              view.type == ElementType::kF32 ? ScalarType::Float : ScalarType::Long),
             static_cast<ssize_t>(sizes.size()), sizes.data(), const_cast<void*>(view.data), order.data(),
             strides.data()) {}

  void fill_strides() {
    std::int32_t stride = 1;
    for (std::size_t i = sizes.size(); i-- > 0; stride *= sizes[i]) {
      strides[i] = stride;
    }
  }

  std::vector<std::int32_t> sizes;
  std::vector<std::uint8_t> order;
  std::vector<std::int32_t> strides;
  ::executorch::aten::TensorImpl impl;
};

}  // namespace

std::size_t element_bytes(ElementType type) { return type == ElementType::kF32 ? 4 : 8; }

struct Program::Impl {
  Impl(std::string file_path, std::unique_ptr<MappedFile> mapped, rt::Program loaded)
      : path(std::move(file_path)), file(std::move(mapped)), program(std::move(loaded)) {}

  std::string path;
  std::unique_ptr<MappedFile> file;
  rt::Program program;
};

Program::Program(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Program::~Program() = default;

Result<std::shared_ptr<const Program>> Program::load(const std::string& path) {
  rt::runtime_init();
  auto file = MappedFile::open(path);
  if (!file) {
    return tl::make_unexpected(std::move(file.error()));
  }
  const FailureScope scope;
  auto program = rt::Program::load(file->get(), rt::Program::Verification::InternalConsistency);
  if (!program.ok()) {
    return scope.error(ErrorCode::kBadFormat, path + ": not an ExecuTorch program, or a damaged one", program.error());
  }
  return std::shared_ptr<const Program>(
      new Program(std::make_unique<Impl>(path, std::move(*file), std::move(program.get()))));
}

const std::string& Program::path() const { return impl_->path; }

std::vector<std::string> Program::method_names() const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < impl_->program.num_methods(); ++i) {
    if (const auto name = impl_->program.get_method_name(i); name.ok()) {
      names.emplace_back(*name);
    }
  }
  return names;
}

// Members are destroyed in reverse: the method before the memory it points into, the pool's user count last.
struct Method::Impl {
  ThreadPoolUse pool_use;
  std::shared_ptr<const Program> program;
  std::string what;  // "<path>: method <name>"
  GrowingAllocator allocator;
  std::vector<std::unique_ptr<std::uint8_t, void (*)(void*)>> buffers;
  std::vector<rt::Span<std::uint8_t>> spans;
  std::optional<rt::HierarchicalAllocator> planned;
  std::optional<rt::MemoryManager> manager;
  std::optional<rt::Method> method;
  std::uint64_t planned_bytes = 0;
};

Method::Method(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Method::~Method() = default;

Result<std::unique_ptr<Method>> Method::load(std::shared_ptr<const Program> program, const std::string& name) {
  auto impl = std::make_unique<Impl>();
  impl->what = program->path() + ": method " + name;
  impl->program = std::move(program);
  const rt::Program& loaded = impl->program->impl_->program;

  const FailureScope scope;
  const auto meta = loaded.method_meta(name.c_str());
  if (!meta.ok()) {
    return scope.error(ErrorCode::kNotFound, impl->what + " cannot be found", meta.error());
  }
  for (std::size_t i = 0; i < meta->num_memory_planned_buffers(); ++i) {
    const auto size = meta->memory_planned_buffer_size(i);
    if (!size.ok() || *size < 0) {
      return scope.error(ErrorCode::kBadFormat, impl->what + " has no valid memory plan", size.error());
    }
    const auto bytes = static_cast<std::size_t>(*size);
    // calloc leaves the pages untouched: a KV cache becomes resident only as far as it is filled.
    auto* data = static_cast<std::uint8_t*>(std::calloc(std::max<std::size_t>(bytes, 1), 1));
    if (data == nullptr) {
      return fail(ErrorCode::kIo,
                  impl->what + " needs " + std::to_string(bytes) + " bytes of memory, which are not there");
    }
    impl->buffers.emplace_back(data, &std::free);
    impl->spans.emplace_back(data, bytes);
    impl->planned_bytes += bytes;
  }
  impl->planned.emplace(rt::Span<rt::Span<std::uint8_t>>(impl->spans.data(), impl->spans.size()));
  impl->manager.emplace(&impl->allocator, &*impl->planned);

  const rt::LoadBackendOptionsMap options = share_packed_weights();
  auto method = loaded.load_method(name.c_str(), &*impl->manager, nullptr, nullptr, &options);
  if (!method.ok()) {
    return scope.error(code_of(method.error()), impl->what + " cannot be loaded", method.error());
  }
  impl->method.emplace(std::move(method.get()));
  // XNNPACK has packed the weights into memory of its own; of the file only tables and embeddings are still read.
  impl->program->impl_->file->release_pages();
  return std::unique_ptr<Method>(new Method(std::move(impl)));
}

Result<std::vector<TensorView>> Method::execute(std::span<const TensorView> inputs) {
  rt::Method& method = *impl_->method;
  if (inputs.size() != method.inputs_size()) {
    return fail(ErrorCode::kInvalidArgument, impl_->what + " takes " + std::to_string(method.inputs_size()) +
                                                 " inputs, not " + std::to_string(inputs.size()));
  }
  const FailureScope scope;
  std::vector<std::unique_ptr<BorrowedTensor>> borrowed;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    borrowed.push_back(std::make_unique<BorrowedTensor>(inputs[i]));
    const rt::EValue value(::executorch::aten::Tensor(&borrowed.back()->impl));
    if (const auto error = method.set_input(value, i); error != rt::Error::Ok) {
      return scope.error(ErrorCode::kInvalidArgument, impl_->what + " does not take this input " + std::to_string(i),
                         error);
    }
  }
  if (const auto error = method.execute(); error != rt::Error::Ok) {
    // It loaded, so what is left is an argument that some kernel refused.
    return scope.error(ErrorCode::kInvalidArgument, impl_->what + " failed", error);
  }
  std::vector<TensorView> outputs;
  for (std::size_t i = 0; i < method.outputs_size(); ++i) {
    const rt::EValue& value = method.get_output(i);
    const auto type = value.isTensor() ? element_type(value.toTensor().scalar_type()) : std::nullopt;
    if (!type) {
      return fail(ErrorCode::kUnsupported, impl_->what + ": output " + std::to_string(i) + " is no f32 or i64 tensor");
    }
    const auto& tensor = value.toTensor();
    outputs.push_back({*type, {tensor.sizes().begin(), tensor.sizes().end()}, tensor.const_data_ptr()});
  }
  return outputs;
}

std::uint64_t Method::planned_bytes() const { return impl_->planned_bytes; }

}  // namespace edge::et
