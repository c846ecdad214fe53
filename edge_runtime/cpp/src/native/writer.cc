#include <nlohmann/json.hpp>
#include <utility>

#include "durable.h"
#include "edge_runtime/native_writer.h"
#include "native/limits.h"
#include "native/packing.h"
#include "native/stored.h"

namespace edge {

using native::is_packed;
using Json = nlohmann::ordered_json;  // so that equal anchors give equal bytes

struct NativeWriter::Place {
  std::uint64_t data = 0;
  std::uint64_t scales = 0;
};

namespace {

// The header under construction: it hands out aligned places, and fills what lies between with tensors, as the format
// forbids holes.
class Layout {
 public:
  Layout() { header_["__metadata__"] = {{"format", native::kFormat}, {"version", std::to_string(native::kVersion)}}; }

  std::uint64_t add(const std::string& name, const native::Stored& stored) {
    if (const std::uint64_t over = end_ % native::kAlignment; over != 0) {
      const std::uint64_t bytes = native::kAlignment - over;
      put("padding." + std::to_string(paddings_++), {"U8", {bytes}, bytes});
    }
    const std::uint64_t place = end_;
    put(name, stored);
    return place;
  }

  // Padded with spaces, so that the data begin with a page.
  std::string text() const {
    std::string text = header_.dump();
    text.resize((8 + text.size() + kPage - 1) / kPage * kPage - 8, ' ');
    return text;
  }

 private:
  void put(const std::string& name, const native::Stored& stored) {
    header_[name] = {{"dtype", stored.dtype}, {"shape", stored.shape}, {"data_offsets", {end_, end_ + stored.bytes}}};
    end_ += stored.bytes;
  }

  Json header_;
  std::uint64_t end_ = 0;
  std::uint64_t paddings_ = 0;
};

}  // namespace

NativeWriter::NativeWriter(std::string path, std::vector<NativeTensor> tensors, std::vector<Place> places,
                           std::unique_ptr<DurableFile> file)
    : path_(std::move(path)), tensors_(std::move(tensors)), places_(std::move(places)), file_(std::move(file)) {}

NativeWriter::NativeWriter(NativeWriter&&) noexcept = default;
NativeWriter::~NativeWriter() = default;

Result<NativeWriter> NativeWriter::create(const std::string& path, const NativeConfig& config, DType dtype) {
  std::vector<NativeTensor> tensors = native_tensors(config, dtype);
  Layout layout;
  std::vector<Place> places;
  for (const NativeTensor& tensor : tensors) {
    if (tensor.dtype == DType::kI4 && tensor.columns() % kI4Group != 0) {
      return fail(ErrorCode::kInvalidArgument, path + ": rows of " + tensor.name + " have " +
                                                   std::to_string(tensor.columns()) +
                                                   " values, which i4 takes in groups of 32: take i8");
    }
    Place place;
    place.data = layout.add(tensor.name, native::stored_data(tensor));
    if (is_packed(tensor.dtype)) {
      place.scales = layout.add(tensor.name + native::kScales, native::stored_scales(tensor));
    }
    places.push_back(place);
  }
  const std::string text = layout.text();
  const std::uint64_t length = text.size();
  auto file = DurableFile::create(path);
  if (!file) return tl::make_unexpected(std::move(file.error()));
  for (Place& place : places) {
    place.data += 8 + length;
    place.scales += 8 + length;
  }
  NativeWriter writer(path, std::move(tensors), std::move(places), std::make_unique<DurableFile>(std::move(*file)));
  if (auto status = writer.file_->write(0, std::as_bytes(std::span(&length, 1))); !status) {
    return tl::make_unexpected(std::move(status.error()));
  }
  if (auto status = writer.file_->write(8, std::as_bytes(std::span(text))); !status) {
    return tl::make_unexpected(std::move(status.error()));
  }
  return writer;
}

Status NativeWriter::append(std::span<const float> rows) {
  if (next_ == tensors_.size() || !file_->open()) {
    return fail(ErrorCode::kInvalidArgument, path_ + ": all of its tensors are written");
  }
  const NativeTensor& tensor = tensors_[next_];
  const std::uint64_t columns = tensor.columns();
  const std::uint64_t count = rows.size() / columns;
  if (rows.size() % columns != 0 || count > tensor.rows() - rows_done_) {
    return fail(ErrorCode::kInvalidArgument, path_ + ": " + std::to_string(rows.size()) +
                                                 " values are not whole rows of " + tensor.name +
                                                 ", or reach beyond it");
  }
  if (auto status = is_packed(tensor.dtype) ? append_packed(tensor, rows) : append_floats(tensor, rows); !status) {
    return fail(status.error().code, path_ + ": " + tensor.name + ": " + status.error().message);
  }
  rows_done_ += count;
  if (rows_done_ == tensor.rows()) {
    rows_done_ = 0;
    ++next_;
  }
  return {};
}

Status NativeWriter::append_floats(const NativeTensor& tensor, std::span<const float> rows) {
  const std::uint64_t columns = tensor.columns();
  const std::size_t bytes = row_bytes(tensor.dtype, columns);
  std::vector<std::byte> data(rows.size() / columns * bytes);
  for (std::uint64_t row = 0; row * columns < rows.size(); ++row) {
    const auto values = rows.subspan(row * columns, columns);
    if (auto status = quantize_row(tensor.dtype, values, data.data() + row * bytes, nullptr); !status) return status;
  }
  return file_->write(places_[next_].data + rows_done_ * bytes, data);
}

// Rows wait in `block_` until there are 16 of them, or no more.
Status NativeWriter::append_packed(const NativeTensor& tensor, std::span<const float> rows) {
  const std::uint64_t columns = tensor.columns();
  const std::size_t block_bytes = kernels::packed_block_bytes(tensor.dtype, columns);
  const std::size_t scale_bytes = kernels::packed_scale_bytes(tensor.dtype, columns);
  std::vector<std::byte> row_data(row_bytes(tensor.dtype, columns));
  std::vector<std::byte> row_scales(row_scale_bytes(tensor.dtype, columns));
  std::vector<std::byte> block = block_;
  std::vector<std::byte> block_scales = block_scales_;
  std::vector<std::byte> data;
  std::vector<std::byte> scales;
  std::uint64_t row = rows_done_;
  const std::uint64_t first_block = row / kernels::kPackedRows;
  for (; !rows.empty(); rows = rows.subspan(columns), ++row) {
    if (row % kernels::kPackedRows == 0) {
      block.assign(block_bytes, std::byte{0});
      block_scales.assign(scale_bytes, std::byte{0});
    }
    if (auto status = quantize_row(tensor.dtype, rows.first(columns), row_data.data(), row_scales.data()); !status) {
      return status;
    }
    native::pack_row(tensor.dtype, row_data.data(), row_scales.data(), columns, row % kernels::kPackedRows,
                     block.data(), block_scales.data());
    if ((row + 1) % kernels::kPackedRows == 0 || row + 1 == tensor.rows()) {
      data.insert(data.end(), block.begin(), block.end());
      scales.insert(scales.end(), block_scales.begin(), block_scales.end());
    }
  }
  if (auto status = file_->write(places_[next_].data + first_block * block_bytes, data); !status) return status;
  if (auto status = file_->write(places_[next_].scales + first_block * scale_bytes, scales); !status) return status;
  block_ = std::move(block);
  block_scales_ = std::move(block_scales);
  return {};
}

Status NativeWriter::finish() {
  if (next_ < tensors_.size()) {
    return fail(ErrorCode::kInvalidArgument, path_ + ": " + tensors_[next_].name + " is not written");
  }
  return file_->commit();
}

}  // namespace edge
