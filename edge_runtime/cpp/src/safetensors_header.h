// The part of the safetensors format that level files and trees share: the header, parsed and bounds-checked.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "byte_source.h"
#include "edge_runtime/result.h"

namespace edge {

struct TensorEntry {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0;  // in the data region
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::map<std::string, TensorEntry> tensors;
  std::uint64_t data_start = 0;
  std::uint64_t file_bytes = 0;
};

// Reads the header and checks that the tensors tile the data region exactly: no hole, no overlap, no trailing byte, and
// that each tensor's bytes agree with its dtype and shape. kIo, kTruncated or kBadFormat.
Result<SafetensorsHeader> read_safetensors_header(const ByteSource& source);

// A tensor's place. kBadFormat where it is missing or has another dtype or shape.
Result<TensorEntry> find_tensor(const SafetensorsHeader& header, const std::string& path, const std::string& name,
                                const std::string& dtype, const std::vector<std::uint64_t>& shape);

// Reads a whole tensor. kBadFormat where it is missing or has another dtype or shape; kIo, kTruncated.
template <typename T>
Status read_tensor(const SafetensorsHeader& header, const ByteSource& source, const std::string& name,
                   const std::string& dtype, const std::vector<std::uint64_t>& shape, std::vector<T>& out) {
  const auto found = find_tensor(header, source.name(), name, dtype, shape);
  if (!found) return tl::make_unexpected(found.error());
  out.resize((found->end - found->begin) / sizeof(T));  // bounded by the file's size
  return source.read(header.data_start + found->begin, std::as_writable_bytes(std::span(out)));
}

// A decimal metadata value in [low, high]; kBadFormat where it is missing or anything else.
Result<std::uint64_t> metadata_number(const SafetensorsHeader& header, const std::string& path, const std::string& key,
                                      std::uint64_t low, std::uint64_t high);
Result<std::string> metadata_text(const SafetensorsHeader& header, const std::string& path, const std::string& key);

}  // namespace edge
