#include "edge_runtime/static_embedder.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <tuple>
#include <utility>

#include "byte_source.h"
#include "durable.h"
#include "mapped_bytes.h"
#include "safetensors_header.h"

namespace edge {
namespace {

constexpr std::uint32_t kMostVocab = 1U << 24U;
constexpr std::uint32_t kMostWidth = 1U << 12U;
constexpr std::uint32_t kMostDim = 1U << 16U;
constexpr std::uint32_t kMostOrder = 4;
// With it no sum of the arithmetic below leaves float's range, whatever the file holds.
constexpr float kLargest = 0x1p20F;

// The finaliser of MurmurHash3: each bit of the input changes half of the output's.
std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 33U;
  x *= 0xFF51AFD7ED558CCDULL;
  x ^= x >> 33U;
  x *= 0xC4CEB9FE1A85EC53ULL;
  return x ^ (x >> 33U);
}

std::uint64_t extend(std::uint64_t hash, std::uint32_t id) { return mix(hash * 0x9E3779B97F4A7C15ULL + id + 1); }

bool in_range(std::span<const float> values, float least) {
  return std::all_of(values.begin(), values.end(), [&](float v) { return v >= least && v <= kLargest; });
}

// Empty where the tables may be written and read.
std::string what_is_wrong(const StaticTables& t, std::span<const std::int8_t> tokens,
                          std::span<const std::int8_t> ngrams) {
  if (t.vocab_size == 0 || t.vocab_size > kMostVocab || t.width == 0 || t.width > kMostWidth || t.dim == 0 ||
      t.dim > kMostDim || t.order == 0 || t.order > kMostOrder || t.ngram_rows > kMostVocab ||
      (t.order == 1) != (t.ngram_rows == 0)) {
    return "vocab_size, width, dim, order or ngram_rows is out of range";
  }
  const auto width = std::size_t{t.width};
  if (t.token_scales.size() != t.vocab_size || t.ngram_scales.size() != t.ngram_rows || t.bias.size() != t.dim ||
      t.map.size() != width * t.dim || tokens.size() != width * t.vocab_size || ngrams.size() != width * t.ngram_rows) {
    return "a table has another size than its numbers say";
  }
  if (!in_range(t.token_scales, 0) || !in_range(t.ngram_scales, 0)) {
    return "a scale is negative, above 2^20 or no number";
  }
  if (!in_range(t.map, -kLargest) || !in_range(t.bias, -kLargest)) {
    return "a value of map or bias is beyond 2^20 or no number";
  }
  return {};
}

void add_row(const std::int8_t* row, float scale, std::span<float> sum) {
  for (std::size_t i = 0; i < sum.size(); ++i) {
    sum[i] += scale * static_cast<float>(row[i]);
  }
}

}  // namespace

std::uint64_t ngram_bucket(std::span<const std::uint32_t> ids, std::uint64_t rows) {
  std::uint64_t hash = 0;
  for (const std::uint32_t id : ids) {
    hash = extend(hash, id);
  }
  return hash % rows;
}

Result<StaticEmbedder> StaticEmbedder::open(const std::string& path) {
  auto file = MappedBytes::open(path);
  if (!file) {
    return tl::make_unexpected(file.error());
  }
  auto embedder = read(**file, (*file)->data(), *file);
  (*file)->leave();  // what is read of the rows from now on comes back
  return embedder;
}

Result<StaticEmbedder> StaticEmbedder::read(const ByteSource& source) { return read(source, nullptr, nullptr); }

Result<StaticEmbedder> StaticEmbedder::read(const ByteSource& source, const std::byte* data,
                                            std::shared_ptr<const void> held) {
  const std::string& path = source.name();
  const auto header = read_safetensors_header(source);
  if (!header) {
    return tl::make_unexpected(header.error());
  }
  const auto format = metadata_text(*header, path, "format");
  if (!format || *format != "edge-runtime.static-embedder") {
    return fail(ErrorCode::kBadFormat,
                path + ": not a static embedder (metadata 'format' is not edge-runtime.static-embedder)");
  }
  if (const auto version = metadata_number(*header, path, "version", 1, 1); !version) {
    return fail(ErrorCode::kUnsupported, version.error().message + ": update edge-runtime");
  }
  const auto tables = std::make_shared<StaticTables>();
  StaticTables& t = *tables;
  const auto numbers = {std::tuple("vocab_size", &t.vocab_size, 1U, kMostVocab),
                        std::tuple("width", &t.width, 1U, kMostWidth), std::tuple("dim", &t.dim, 1U, kMostDim),
                        std::tuple("order", &t.order, 1U, kMostOrder),
                        std::tuple("ngram_rows", &t.ngram_rows, 0U, kMostVocab)};
  for (const auto& [key, value, low, high] : numbers) {
    const auto found = metadata_number(*header, path, key, low, high);
    if (!found) {
      return tl::make_unexpected(found.error());
    }
    *value = static_cast<std::uint32_t>(*found);
  }
  using Shape = std::vector<std::uint64_t>;
  Status status = read_tensor(*header, source, "token_scales", "F32", Shape{t.vocab_size}, t.token_scales);
  const auto next = [&](const char* name, const char* dtype, const Shape& shape, auto& out) {
    if (status) {
      status = read_tensor(*header, source, name, dtype, shape, out);
    }
  };
  next("map", "F32", {t.width, t.dim}, t.map);
  next("bias", "F32", {t.dim}, t.bias);
  StaticEmbedder embedder;
  const auto rows = [&](const char* name, std::uint64_t count, std::vector<std::int8_t>& copy,
                        std::span<const std::int8_t>& out) {
    if (data == nullptr) {
      next(name, "I8", {count, t.width}, copy);
      out = copy;
    } else if (status) {
      const auto found = find_tensor(*header, path, name, "I8", {count, t.width});
      if (found) {
        out = {reinterpret_cast<const std::int8_t*>(data + header->data_start + found->begin),
               found->end - found->begin};
      } else {
        status = tl::make_unexpected(found.error());
      }
    }
  };
  rows("tokens", t.vocab_size, t.tokens, embedder.tokens_);
  if (t.ngram_rows > 0) {
    next("ngram_scales", "F32", {t.ngram_rows}, t.ngram_scales);
    rows("ngrams", t.ngram_rows, t.ngrams, embedder.ngrams_);
  }
  if (!status) {
    return tl::make_unexpected(status.error());
  }
  if (const std::string wrong = what_is_wrong(t, embedder.tokens_, embedder.ngrams_); !wrong.empty()) {
    return fail(ErrorCode::kBadFormat, path + ": " + wrong);
  }
  embedder.tables_ = tables;
  embedder.held_ = std::move(held);
  return embedder;
}

std::uint64_t StaticEmbedder::bytes() const {
  const StaticTables& t = *tables_;
  const std::size_t floats = t.token_scales.size() + t.ngram_scales.size() + t.map.size() + t.bias.size();
  return sizeof(float) * floats + tokens_.size() + ngrams_.size();
}

Status StaticEmbedder::embed(std::span<const std::uint32_t> ids, std::span<float> out) const {
  const StaticTables& t = *tables_;
  if (out.size() != t.dim) {
    return fail(ErrorCode::kInvalidArgument,
                "an embedding has " + std::to_string(t.dim) + " values, not " + std::to_string(out.size()));
  }
  std::vector<float> pooled(t.width);
  std::size_t rows = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::uint64_t hash = 0;
    for (std::size_t n = 1; n <= t.order && i + n <= ids.size(); ++n, ++rows) {
      const std::uint32_t id = ids[i + n - 1];
      if (id >= t.vocab_size) {
        return fail(ErrorCode::kInvalidArgument,
                    "token " + std::to_string(id) + ": the embedder knows " + std::to_string(t.vocab_size) + " tokens");
      }
      hash = extend(hash, id);
      if (n == 1) {
        add_row(tokens_.data() + std::size_t{id} * t.width, t.token_scales[id], pooled);
      } else {
        const std::size_t bucket = hash % t.ngram_rows;
        add_row(ngrams_.data() + bucket * t.width, t.ngram_scales[bucket], pooled);
      }
    }
  }
  std::copy(t.bias.begin(), t.bias.end(), out.begin());
  for (std::size_t j = 0; rows > 0 && j < pooled.size(); ++j) {
    const float value = pooled[j] / static_cast<float>(rows);
    const float* const column = t.map.data() + j * t.dim;
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] += value * column[i];
    }
  }
  double squares = 0;
  for (const float value : out) {
    squares += static_cast<double>(value) * value;
  }
  if (squares > 0) {
    const double norm = std::sqrt(squares);
    std::transform(out.begin(), out.end(), out.begin(), [&](float v) { return static_cast<float>(v / norm); });
  }
  return {};
}

Status write_static_embedder(const std::string& path, const StaticTables& tables) {
  using Json = nlohmann::ordered_json;
  const StaticTables& t = tables;
  if (const std::string wrong = what_is_wrong(t, t.tokens, t.ngrams); !wrong.empty()) {
    return fail(ErrorCode::kInvalidArgument, path + ": " + wrong);
  }
  Json header;
  header["__metadata__"] = {{"format", "edge-runtime.static-embedder"},
                            {"version", "1"},
                            {"vocab_size", std::to_string(t.vocab_size)},
                            {"width", std::to_string(t.width)},
                            {"dim", std::to_string(t.dim)},
                            {"order", std::to_string(t.order)},
                            {"ngram_rows", std::to_string(t.ngram_rows)}};
  std::vector<std::string_view> parts(2);
  std::uint64_t offset = 0;
  const auto add = [&](const char* name, const char* dtype, const std::vector<std::uint64_t>& shape, const auto& data) {
    const std::string_view bytes(reinterpret_cast<const char*>(data.data()), data.size() * sizeof(data[0]));
    header[name] = {{"dtype", dtype}, {"shape", Json(shape)}, {"data_offsets", {offset, offset + bytes.size()}}};
    offset += bytes.size();
    parts.push_back(bytes);
  };
  // The bytes last: every float is aligned.
  add("token_scales", "F32", {t.vocab_size}, t.token_scales);
  if (t.ngram_rows > 0) {
    add("ngram_scales", "F32", {t.ngram_rows}, t.ngram_scales);
  }
  add("map", "F32", {t.width, t.dim}, t.map);
  add("bias", "F32", {t.dim}, t.bias);
  add("tokens", "I8", {t.vocab_size, t.width}, t.tokens);
  if (t.ngram_rows > 0) {
    add("ngrams", "I8", {t.ngram_rows, t.width}, t.ngrams);
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // safetensors aligns the data region to 8 bytes
  const std::uint64_t length = text.size();
  parts[0] = std::string_view(reinterpret_cast<const char*>(&length), sizeof(length));
  parts[1] = text;
  return write_durably(path, parts);
}

}  // namespace edge
