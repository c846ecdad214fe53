// The decoders of tokenizer files, as what a token's text becomes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "edge_runtime/result.h"

namespace edge::text {

struct Decoder {
  bool byte_level = false;     // tokens are bytes; otherwise they are text
  bool byte_fallback = false;  // tokens such as <0x0A> are bytes
  std::string space = {};      // what stands for a space in a token; empty: nothing does
  bool strips = false;         // one space at the text's beginning is left out

  // kUnsupported: another chain of steps than tokenizers of this kind have; the message names no file.
  static Result<Decoder> parse(const nlohmann::json& json);
};

}  // namespace edge::text
