#include "native/weights.h"

#include <optional>
#include <utility>

#include "mapped_bytes.h"
#include "native/limits.h"
#include "native/packing.h"
#include "native/stored.h"
#include "safetensors_header.h"

namespace edge::native {
namespace {

// Looks tensors up and keeps the first thing that is wrong.
class Finder {
 public:
  Finder(const SafetensorsHeader& header, const std::string& name, const std::byte* data)
      : header_(header), name_(name), data_(data) {}

  // The tensor in whichever dtype the file has it.
  Matrix matrix(const NativeTensor& wanted) {
    const auto found = header_.tensors.find(wanted.name);
    if (found == header_.tensors.end()) {
      keep("it lacks the tensor '" + wanted.name + "'");
      return {};
    }
    const TensorEntry& entry = found->second;
    NativeTensor tensor = wanted;
    const std::optional<DType> dtype = dtype_of(entry.dtype);
    if (dtype) tensor.dtype = *dtype;
    if (!dtype || entry.shape != stored_data(tensor).shape ||
        (*dtype == DType::kI4 && tensor.columns() % kI4Group != 0)) {
      keep("the tensor '" + wanted.name + "' has another dtype or shape than the manifest's anchor");
      return {};
    }
    Matrix matrix{tensor.dtype, tensor.rows(), tensor.columns(), place(wanted.name, entry), nullptr};
    if (is_packed(tensor.dtype)) matrix.scales = scales(tensor);
    return matrix;
  }
  const float* vector(const NativeTensor& wanted) {
    const Matrix found = matrix(wanted);
    if (found.data != nullptr && found.dtype != DType::kF32) keep("the tensor '" + wanted.name + "' is not F32");
    return reinterpret_cast<const float*>(found.data);
  }
  void require(bool holds, const std::string& what) {
    if (!holds) keep(what);
  }
  const Status& status() const { return status_; }

 private:
  static std::optional<DType> dtype_of(const std::string& stored) {
    if (stored == "F32") return DType::kF32;
    if (stored == "F16") return DType::kF16;
    if (stored == "BF16") return DType::kBF16;
    if (stored == "I8") return DType::kI8;
    if (stored == "U8") return DType::kI4;
    return std::nullopt;
  }
  const std::byte* scales(const NativeTensor& tensor) {
    const std::string name = tensor.name + kScales;
    const auto found = header_.tensors.find(name);
    const Stored wanted = stored_scales(tensor);
    if (found == header_.tensors.end() || found->second.dtype != wanted.dtype || found->second.shape != wanted.shape) {
      keep("the tensor '" + name + "' is missing or has another dtype or shape");
      return nullptr;
    }
    return place(name, found->second);
  }
  const std::byte* place(const std::string& name, const TensorEntry& entry) {
    if ((header_.data_start + entry.begin) % kAlignment != 0) {
      keep("the tensor '" + name + "' does not begin at a multiple of " + std::to_string(kAlignment) + " bytes");
    }
    return data_ + header_.data_start + entry.begin;
  }
  void keep(const std::string& what) {
    if (status_) status_ = fail(ErrorCode::kBadFormat, name_ + ": " + what + ": export the anchor again");
  }

  const SafetensorsHeader& header_;
  const std::string& name_;
  const std::byte* data_;
  Status status_;
};

}  // namespace

void Matrix::row(std::size_t index, std::span<float> out) const {
  const std::size_t bytes = row_bytes(dtype, columns);
  if (!is_packed(dtype)) {
    dequantize_row(dtype, data + index * bytes, nullptr, out);
    return;
  }
  std::vector<std::byte> row(bytes);
  std::vector<std::byte> of_row(row_scale_bytes(dtype, columns));
  const std::size_t block = index / kernels::kPackedRows;
  unpack_row(dtype, data + block * kernels::packed_block_bytes(dtype, columns),
             scales + block * kernels::packed_scale_bytes(dtype, columns), columns, index % kernels::kPackedRows,
             row.data(), of_row.data());
  dequantize_row(dtype, row.data(), of_row.data(), out);
}

Result<Weights> Weights::open(const std::string& path, const NativeConfig& config) {
  auto file = MappedBytes::open(path);
  if (!file) return tl::make_unexpected(std::move(file.error()));
  auto weights = read(**file, (*file)->data(), config);
  if (weights) weights->file = std::move(*file);
  return weights;
}

Result<Weights> Weights::read(const ByteSource& source, const std::byte* data, const NativeConfig& config) {
  const std::string& path = source.name();
  const auto header = read_safetensors_header(source);
  if (!header) return tl::make_unexpected(header.error());
  const auto format = metadata_text(*header, path, "format");
  if (!format || *format != kFormat) {
    return fail(ErrorCode::kBadFormat, path + ": not a native anchor (metadata 'format' is not " + kFormat + ")");
  }
  if (const auto version = metadata_number(*header, path, "version", kVersion, kVersion); !version) {
    return fail(ErrorCode::kUnsupported,
                version.error().message + ": export the anchor again, or update edge-runtime if it is newer");
  }
  Finder find(*header, path, data);
  Weights weights;
  weights.layers.resize(config.layers);
  // In the order of native_tensors, whose dtype for matrices is only a proposal.
  const std::vector<NativeTensor> tensors = native_tensors(config, DType::kF32);
  auto next = tensors.begin();
  const auto vector_if = [&](bool there) { return there ? find.vector(*next++) : nullptr; };
  weights.embedding = find.matrix(*next++);
  for (Layer& layer : weights.layers) {
    layer.attention_norm = vector_if(config.pre_norm);
    layer.qkv = find.matrix(*next++);
    layer.qkv_bias = vector_if(config.qkv_bias);
    layer.q_norm = vector_if(config.qk_norm != QkNorm::kNone);
    layer.k_norm = vector_if(config.qk_norm != QkNorm::kNone);
    layer.attention_out = find.matrix(*next++);
    layer.attention_out_bias = vector_if(config.output_bias);
    layer.attention_post_norm = vector_if(config.post_norm);
    layer.ffn_norm = vector_if(config.pre_norm);
    layer.gate = find.matrix(*next++);
    layer.gate_bias = vector_if(config.ffn_bias);
    layer.up = find.matrix(*next++);
    layer.up_bias = vector_if(config.ffn_bias);
    find.require(layer.gate.dtype == layer.up.dtype, "a layer's 'gate' and 'up' differ in dtype");
    layer.down = find.matrix(*next++);
    layer.down_bias = vector_if(config.ffn_bias);
    layer.ffn_post_norm = vector_if(config.post_norm);
  }
  weights.norm = find.vector(*next++);
  weights.head = config.tied_embeddings ? weights.embedding : find.matrix(*next++);
  if (!find.status()) return tl::make_unexpected(find.status().error());
  return weights;
}

}  // namespace edge::native
