#include "edge_runtime/bank_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "bank_metadata.h"
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

}  // namespace

Result<BankLevelWriter> BankLevelWriter::create(const std::string& path, const BankLevelSpec& spec) {
  BankLevelWriter writer;
  writer.path_ = path;
  writer.spec_ = spec;
  if (auto status = check_spec(writer.spec_); !status) {
    return fail(ErrorCode::kInvalidArgument, path + ": " + status.error().message);
  }
  writer.partial_ = path + ".partial";
  writer.file_.open(writer.partial_, std::ios::binary | std::ios::trunc);
  if (!writer.file_) {
    return fail(ErrorCode::kIo, writer.partial_ + ": cannot be created: " + std::strerror(errno));
  }
  writer.block_.resize(writer.spec_.stride());
  writer.xxh3_.reserve(writer.spec_.rows * writer.spec_.layers());
  writer.row_of_node_.assign(writer.spec_.nodes, -1);
  const std::string text = header_text(writer.spec_);
  const std::uint64_t length = text.size();
  if (auto status = writer.write(std::as_bytes(std::span(&length, 1))); !status) {
    return tl::make_unexpected(status.error());
  }
  if (auto status = writer.write(std::as_bytes(std::span(text))); !status) {
    return tl::make_unexpected(status.error());
  }
  return writer;
}

BankLevelWriter::~BankLevelWriter() {
  if (file_.is_open()) {
    file_.close();
    std::error_code ignored;  // nothing can be done about it in a destructor, and a later writer truncates it
    std::filesystem::remove(partial_, ignored);
  }
}

Status BankLevelWriter::write(std::span<const std::byte> bytes) {
  file_.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file_) {
    return fail(ErrorCode::kIo, partial_ + ": writing failed: " + std::strerror(errno));
  }
  return {};
}

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
  if (node >= spec_.nodes || row_of_node_[node] != -1 || static_cast<std::uint64_t>(next_row_) >= spec_.rows) {
    return fail(ErrorCode::kInvalidArgument, path_ + ": node " + std::to_string(node) +
                                                 " is outside the level, written already, or one block too many");
  }
  std::fill(block_.begin(), block_.end(), std::byte{0});
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
  if (auto status = write(block_); !status) {
    return status;
  }
  row_of_node_[node] = next_row_++;
  return {};
}

Status BankLevelWriter::finish() {
  if (!file_.is_open()) {
    return fail(ErrorCode::kInvalidArgument, path_ + ": it is finished already");
  }
  if (static_cast<std::uint64_t>(next_row_) != spec_.rows) {
    return fail(ErrorCode::kInvalidArgument, path_ + ": " + std::to_string(next_row_) + " of " +
                                                 std::to_string(spec_.rows) + " blocks were appended");
  }
  if (auto status = write(std::as_bytes(std::span(xxh3_))); !status) {
    return status;
  }
  if (auto status = write(std::as_bytes(std::span(row_of_node_))); !status) {
    return status;
  }
  file_.close();
  if (!file_) {
    const int error = errno;
    std::error_code ignored;  // the failure that is reported matters more
    std::filesystem::remove(partial_, ignored);
    return fail(ErrorCode::kIo, partial_ + ": writing failed: " + std::strerror(error));
  }
  return replace_durably(partial_, path_);
}

}  // namespace edge
