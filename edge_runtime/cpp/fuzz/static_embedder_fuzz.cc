// The static embedder: a hostile file is refused with a clear line; one that is accepted gives finite embeddings of
// length one or zero.
#include <charconv>
#include <cmath>
#include <string>
#include <vector>

#include "edge_runtime/static_embedder.h"
#include "safetensors_input.h"

namespace edge::fuzz {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMostValues = 1U << 18U;

std::uint64_t number_of(const Json& header, const char* key) {
  const Json::json_pointer pointer(std::string("/__metadata__/") + key);
  std::uint64_t value = 0;
  if (header.contains(pointer) && header[pointer].is_string()) {
    const auto text = header[pointer].get<std::string>();
    std::from_chars(text.data(), text.data() + text.size(), value);
  }
  return value;
}

// The tables that the metadata mean.
void derive(Json& header) {
  const std::uint64_t vocab_size = number_of(header, "vocab_size");
  const std::uint64_t width = number_of(header, "width");
  const std::uint64_t dim = number_of(header, "dim");
  const std::uint64_t ngram_rows = number_of(header, "ngram_rows");
  if (width == 0 || width > kMostValues || vocab_size > kMostValues / width || ngram_rows > kMostValues / width ||
      dim > kMostValues / width) {
    return;
  }
  std::uint64_t offset = 0;
  const auto add = [&](const char* name, const char* dtype, std::uint64_t size,
                       const std::vector<std::uint64_t>& shape) {
    std::uint64_t bytes = size;
    for (const std::uint64_t extent : shape) bytes *= extent;
    header[name] = {{"dtype", dtype}, {"shape", Json(shape)}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  };
  add("token_scales", "F32", 4, {vocab_size});
  if (ngram_rows > 0) add("ngram_scales", "F32", 4, {ngram_rows});
  add("map", "F32", 4, {width, dim});
  add("bias", "F32", 4, {dim});
  add("tokens", "I8", 1, {vocab_size, width});
  if (ngram_rows > 0) add("ngrams", "I8", 1, {ngram_rows, width});
}

void require_embeds(const StaticEmbedder& embedder, const std::vector<std::uint32_t>& ids) {
  std::vector<float> out(embedder.dim());
  require(embedder.embed(ids, out).has_value(), "ids of the vocabulary are embedded");
  double squares = 0;
  for (const float value : out) squares += static_cast<double>(value) * value;
  require(squares == 0 || std::fabs(squares - 1) < 1e-3, "an embedding has length one or zero");
}

}  // namespace
}  // namespace edge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace edge::fuzz;
  const auto source = SafetensorsInput::of(
      {data, size}, {.alignment = 8, .filler = 0, .anchor = Anchor::kBegin, .hole = nullptr, .derive = derive});
  const auto embedder = edge::StaticEmbedder::read(source);
  if (!embedder) {
    require_clear(embedder.error(), source.name());
    return 0;
  }
  const std::uint32_t last = embedder->vocab_size() - 1;
  require_embeds(*embedder, {});
  require_embeds(*embedder, {0, last, last, 0, last / 2, 0});
  std::vector<float> out(embedder->dim());
  require(!embedder->embed(std::vector<std::uint32_t>{last + 1}, out), "an id outside the vocabulary is refused");
  return 0;
}
