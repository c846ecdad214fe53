// The compact form in which the corpus holds safetensors files, and the file that it stands for.
//
//   byte 0     flags: bit 0 derive what follows from the metadata; bit 1 pad the header; bits 2-3 the size (below)
//   then       the header's JSON, to the first NUL or the end
//   then       bytes of the data region; the rest of the region is filler, which takes no memory
//
// A level file is 16 KiB of padding and blocks that the reader never looks at: mutating real files would seldom hit a
// byte that counts, and the corpus would weigh megabytes.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "byte_source.h"
#include "fuzz.h"

namespace edge::fuzz {

// Where the bytes that are given stand in the data region.
enum class Anchor : std::uint8_t { kBegin, kEnd };

struct Layout {
  std::uint64_t alignment;                 // of the data region
  std::uint8_t filler;                     // the data bytes that are not given
  Anchor anchor;                           // of those that are
  const char* hole;                        // a tensor that is never read, so it may have any size; or null
  void (*derive)(nlohmann::json& header);  // makes the header agree with its metadata where that makes sense
};

class SafetensorsInput final : public ByteSource {
 public:
  static SafetensorsInput of(Input input, const Layout& layout);
  Status read(std::uint64_t offset, std::span<std::byte> out) const override;

 private:
  SafetensorsInput(std::string head, std::uint64_t size, std::string data, std::uint64_t data_at, std::uint8_t filler);

  std::string head_;  // the length and the header
  std::string data_;
  std::uint64_t data_at_;
  std::uint8_t filler_;
};

}  // namespace edge::fuzz
