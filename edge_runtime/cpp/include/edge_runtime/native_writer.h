// Writes anchor.native.safetensors (docs/native-format.md): the engine maps it and reads the rows in place.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "edge_runtime/native_config.h"

namespace edge {

class DurableFile;

// Streams the tensors of `tensors()` in their order; the file appears whole at finish() or not at all.
// Thread-compatible.
class NativeWriter {
 public:
  // kInvalidArgument: rows that the dtype cannot hold; kIo.
  static Result<NativeWriter> create(const std::string& path, const NativeConfig& config, DType dtype);
  NativeWriter(NativeWriter&&) noexcept;
  NativeWriter& operator=(NativeWriter&&) = delete;
  ~NativeWriter();

  const std::vector<NativeTensor>& tensors() const { return tensors_; }
  // The next whole rows, quantised on their way; they may not reach into the next tensor. kInvalidArgument where they
  // do, or where a value is not finite or overflows the dtype; kIo.
  Status append(std::span<const float> rows);
  // kInvalidArgument: tensors are missing; kIo.
  Status finish();

 private:
  struct Place;
  NativeWriter(std::string path, std::vector<NativeTensor> tensors, std::vector<Place> places,
               std::unique_ptr<DurableFile> file);

  Status append_floats(const NativeTensor& tensor, std::span<const float> rows);
  Status append_packed(const NativeTensor& tensor, std::span<const float> rows);

  std::string path_;
  std::vector<NativeTensor> tensors_;
  std::vector<Place> places_;
  std::unique_ptr<DurableFile> file_;
  std::size_t next_ = 0;          // the tensor under way
  std::uint64_t rows_done_ = 0;   // of it
  std::vector<std::byte> block_;  // packed rows that do not fill a block yet
  std::vector<std::byte> block_scales_;
};

}  // namespace edge
