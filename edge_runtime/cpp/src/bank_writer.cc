#include "edge_runtime/bank_writer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "bank_metadata.h"
#include "byte_source.h"
#include "durable.h"

namespace edge {
namespace {

// Ordered, so that equal specs give equal bytes.
using Json = nlohmann::ordered_json;

std::string header_text(const BankLevelSpec& spec) {
  Json tensors = Json::array();
  for (const TensorShape& tensor : spec.tensors) {
    tensors.push_back({tensor.name, {tensor.rows, tensor.columns}});
  }
  const std::uint64_t blocks_end = spec.rows * spec.stride();
  const std::uint64_t xxh3_end = blocks_end + spec.rows * spec.layers() * sizeof(std::uint64_t);
  const std::uint64_t end = xxh3_end + spec.nodes * sizeof(std::int32_t);
  Json header;
  header["__metadata__"] = {{"format", "edge-runtime.bank"},
                            {"version", "1"},
                            {"kind", spec.kind},
                            {"level", std::to_string(spec.level)},
                            {"fanout", std::to_string(spec.fanout)},
                            {"dtype", std::string(name(spec.dtype))},
                            {"d_model", std::to_string(spec.d_model)},
                            {"rows_per_block", std::to_string(spec.rows_per_block)},
                            {"anchor_layers", Json(spec.anchor_layers).dump()},
                            {"tensors", tensors.dump()},
                            {"scale_bytes", std::to_string(spec.scale_bytes())},
                            {"layer_bytes", std::to_string(spec.layer_bytes())}};
  header["blocks"] = {{"dtype", "U8"}, {"shape", {spec.rows, spec.stride()}}, {"data_offsets", {0, blocks_end}}};
  header["xxh3"] = {{"dtype", "U64"}, {"shape", {spec.rows, spec.layers()}}, {"data_offsets", {blocks_end, xxh3_end}}};
  header["row_of_node"] = {{"dtype", "I32"}, {"shape", Json::array({spec.nodes})}, {"data_offsets", {xxh3_end, end}}};
  std::string text = header.dump();
  const std::uint64_t data_start = (8 + text.size() + kPage - 1) / kPage * kPage;
  text.resize(data_start - 8, ' ');
  return text;
}

// Whether a block of the one is a block of the other, byte for byte.
bool same_frame(const BankLevelSpec& a, const BankLevelSpec& b) {
  const auto same_tensor = [](const TensorShape& x, const TensorShape& y) {
    return x.name == y.name && x.rows == y.rows && x.columns == y.columns;
  };
  return a.kind == b.kind && a.level == b.level && a.fanout == b.fanout && a.dtype == b.dtype &&
         a.d_model == b.d_model && a.rows_per_block == b.rows_per_block && a.anchor_layers == b.anchor_layers &&
         std::equal(a.tensors.begin(), a.tensors.end(), b.tensors.begin(), b.tensors.end(), same_tensor);
}

}  // namespace

BankLevelWriter::BankLevelWriter(std::string path, BankLevelSpec spec, std::unique_ptr<DurableFile> file)
    : path_(std::move(path)), spec_(std::move(spec)), file_(std::move(file)) {
  xxh3_.reserve(spec_.rows * spec_.layers());
  row_of_node_.assign(spec_.nodes, -1);
}

BankLevelWriter::BankLevelWriter(BankLevelWriter&&) noexcept = default;
BankLevelWriter::~BankLevelWriter() = default;

Result<BankLevelWriter> BankLevelWriter::create(const std::string& path, const BankLevelSpec& spec) {
  BankLevelSpec checked = spec;
  if (auto status = check_spec(checked); !status) {
    return fail(ErrorCode::kInvalidArgument, path + ": " + status.error().message);
  }
  const std::string text = header_text(checked);
  const std::uint64_t length = text.size();
  auto file = DurableFile::create(path);
  if (!file) {
    return tl::make_unexpected(std::move(file.error()));
  }
  if (auto status = file->write(0, std::as_bytes(std::span(&length, 1))); !status) {
    return tl::make_unexpected(std::move(status.error()));
  }
  if (auto status = file->write(sizeof(length), std::as_bytes(std::span(text))); !status) {
    return tl::make_unexpected(std::move(status.error()));
  }
  BankLevelWriter writer(path, std::move(checked), std::make_unique<DurableFile>(std::move(*file)));
  writer.data_start_ = sizeof(length) + length;
  return writer;
}

Status BankLevelWriter::check_next(std::uint64_t node) const {
  if (!file_->open()) {
    return fail(ErrorCode::kInvalidArgument, path_ + ": it is finished already");
  }
  if (node >= spec_.nodes || row_of_node_[node] != -1 || static_cast<std::uint64_t>(next_row_) >= spec_.rows) {
    return fail(ErrorCode::kInvalidArgument, path_ + ": node " + std::to_string(node) +
                                                 " is outside the level, written already, or one block too many");
  }
  return {};
}

std::uint64_t BankLevelWriter::next_offset() const {
  return data_start_ + static_cast<std::uint64_t>(next_row_) * spec_.stride();
}

void BankLevelWriter::take_row(std::uint64_t node) { row_of_node_[node] = next_row_++; }

Status BankLevelWriter::append(std::uint64_t node, std::span<const float> values) {
  std::uint64_t expected = 0;
  for (const TensorShape& tensor : spec_.tensors) {
    expected += tensor.rows * tensor.columns;
  }
  expected *= spec_.layers();
  if (values.size() != expected) {
    return fail(ErrorCode::kInvalidArgument,
                path_ + ": a block has " + std::to_string(expected) + " values, not " + std::to_string(values.size()));
  }
  if (auto status = check_next(node); !status) {
    return status;
  }
  block_.assign(spec_.stride(), std::byte{0});
  xxh3_.resize(static_cast<std::size_t>(next_row_) * spec_.layers());  // without those of a block that was refused
  std::size_t at = 0;
  for (std::uint64_t layer = 0; layer < spec_.layers(); ++layer) {
    std::byte* data = block_.data() + spec_.layer_offset(layer);
    std::byte* scales = block_.data() + spec_.scale_offset(layer);
    for (const TensorShape& tensor : spec_.tensors) {
      for (std::uint64_t row = 0; row < tensor.rows; ++row) {
        if (auto status = quantize_row(spec_.dtype, values.subspan(at, tensor.columns), data, scales); !status) {
          return fail(status.error().code, path_ + ": node " + std::to_string(node) + ", layer " +
                                               std::to_string(layer) + ", " + tensor.name + ": " +
                                               status.error().message);
        }
        at += tensor.columns;
        data += row_bytes(spec_.dtype, tensor.columns);
        scales += row_scale_bytes(spec_.dtype, tensor.columns);
      }
    }
    xxh3_.push_back(layer_checksum(spec_, block_, layer));
  }
  if (auto status = file_->write(next_offset(), block_); !status) {
    return status;
  }
  take_row(node);
  return {};
}

Status BankLevelWriter::append_hole(std::uint64_t node) {
  if (auto status = check_next(node); !status) {
    return status;
  }
  if (!hole_checksum_) {
    const std::vector<std::byte> scales(spec_.layer_scale_bytes());
    const std::vector<std::byte> data(spec_.layer_bytes());
    hole_checksum_ = layer_checksum(scales, data);
  }
  // Nothing is written: the tables behind the blocks make the file as long as it must be, and a hole reads as zeros.
  xxh3_.resize(static_cast<std::size_t>(next_row_) * spec_.layers());  // without those of a block that was refused
  xxh3_.resize(xxh3_.size() + spec_.layers(), *hole_checksum_);
  take_row(node);
  return {};
}

Status BankLevelWriter::copy(std::uint64_t node, const BankLevel& source) {
  if (auto status = check_next(node); !status) {
    return status;
  }
  if (!same_frame(spec_, source.spec())) {
    return fail(ErrorCode::kInvalidArgument,
                source.path() + ": kind, level, fanout, dtype, layers or shapes differ from those of " + path_);
  }
  if (source.row_of(node) < 0) {
    return fail(ErrorCode::kNotFound, source.path() + ": node " + std::to_string(node) + " has no block");
  }
  xxh3_.resize(static_cast<std::size_t>(next_row_) * spec_.layers());
  if (auto status = copy_layers(node, source); !status) {
    return status;
  }
  take_row(node);
  return {};
}

// The padding, which no checksum covers, is written anew and not copied.
Status BankLevelWriter::copy_layers(std::uint64_t node, const BankLevel& source) {
  const auto row = static_cast<std::uint64_t>(source.row_of(node));
  const std::uint64_t from = source.block_offset(row);
  const auto file = open_file(source.path());
  if (!file) {
    return tl::make_unexpected(file.error());
  }
  std::vector<std::byte> plane(spec_.scale_bytes());
  const auto scales = std::span(plane).first(spec_.layers() * spec_.layer_scale_bytes());
  if (auto status = (*file)->read(from, scales); !status) {
    return status;
  }
  if (auto status = file_->write(next_offset(), plane); !status) {
    return status;
  }
  block_.resize(spec_.layer_bytes());
  for (std::uint64_t layer = 0; layer < spec_.layers(); ++layer) {
    const std::uint64_t at = spec_.layer_offset(layer);
    if (auto status = (*file)->read(from + at, block_); !status) {
      return status;
    }
    const auto where = [&] {
      return source.path() + ": level " + std::to_string(spec_.level) + ", node " + std::to_string(node) + ", row " +
             std::to_string(row) + ", layer " + std::to_string(layer) + ", offset " + std::to_string(from + at);
    };
    const auto own_scales = std::span(plane).subspan(spec_.scale_offset(layer), spec_.layer_scale_bytes());
    xxh3_.push_back(layer_checksum(own_scales, block_));
    if (xxh3_.back() != source.checksum(row, layer)) {
      return fail(ErrorCode::kChecksum, where() + ": checksum mismatch: replace or remove the block");
    }
    if (!scales_are_valid(spec_, plane, layer)) {
      return fail(ErrorCode::kBadFormat, where() + ": a scale is negative or not finite: replace or remove the block");
    }
    if (auto status = file_->write(next_offset() + at, block_); !status) {
      return status;
    }
  }
  const std::uint64_t end = spec_.layer_offset(spec_.layers());
  return file_->write(next_offset() + end, std::vector<std::byte>(spec_.stride() - end));
}

Status BankLevelWriter::finish() {
  if (!file_->open()) {
    return fail(ErrorCode::kInvalidArgument, path_ + ": it is finished already");
  }
  if (static_cast<std::uint64_t>(next_row_) != spec_.rows) {
    return fail(ErrorCode::kInvalidArgument, path_ + ": " + std::to_string(next_row_) + " of " +
                                                 std::to_string(spec_.rows) + " blocks were appended");
  }
  const std::uint64_t tables = next_offset();
  if (auto status = file_->write(tables, std::as_bytes(std::span(xxh3_))); !status) {
    return status;
  }
  if (auto status = file_->write(tables + std::span(xxh3_).size_bytes(), std::as_bytes(std::span(row_of_node_)));
      !status) {
    return status;
  }
  return file_->commit();
}

}  // namespace edge
