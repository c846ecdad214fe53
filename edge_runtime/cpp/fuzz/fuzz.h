// What the fuzz targets share. Each target is one translation unit with LLVMFuzzerTestOneInput; the same unit is built
// twice: with libFuzzer (EDGE_FUZZ) to search, and with replay_main.cc to run the corpus as an ordinary test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

#include "edge_runtime/result.h"

namespace edge::fuzz {

using Input = std::span<const std::uint8_t>;

// A property that every input must keep: what does not is a finding, in every kind of build.
inline void require(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "broken property: %s\n", what);
    std::abort();
  }
}

// An error is one line of printable ASCII that begins with the file's name, whatever the file held.
inline void require_clear(const Error& error, std::string_view name) {
  require(std::string_view(error.message).starts_with(name), "the message names the file");
  for (const char c : error.message) {
    require(c >= ' ' && c <= '~', "the message is one printable line");
  }
  require(error.message.size() < 1000, "the message is short");
}

// Where the input's JSON lies, for the mutator: [begin, end). Each target that takes JSON defines it.
struct Range {
  std::size_t begin;
  std::size_t end;
};
Range json_range(Input input);

}  // namespace edge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
