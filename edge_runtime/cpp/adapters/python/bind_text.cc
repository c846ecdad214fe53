// The sampler, which every engine uses, and the core's tokenizer.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bindings.h"
#include "edge_runtime/sampler.h"
#include "edge_runtime/tokenizer.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edge::python {
namespace {

using Logits = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const std::uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::span<const float> logits_of(const Logits& logits) {
  if (logits.size() == 0) raise({ErrorCode::kInvalidArgument, "no logits to sample from"});
  return {logits.data(), logits.size()};
}

}  // namespace

void bind_text(nb::module_& module) {
  nb::class_<Sampler>(module, "Sampler", "Chooses the next token from logits. Not thread-safe.")
      .def(
          "__init__",
          [](Sampler* self, float temperature, std::uint32_t top_k, float top_p, float min_p, float repetition_penalty,
             std::uint64_t seed) {
            new (self) Sampler(unwrap(Sampler::create({.repetition_penalty = repetition_penalty,
                                                       .temperature = temperature,
                                                       .top_k = top_k,
                                                       .top_p = top_p,
                                                       .min_p = min_p,
                                                       .seed = seed})));
          },
          "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "repetition_penalty"_a, "seed"_a)
      .def(
          "accept", [](Sampler& self, const Ids& tokens) { self.accept({tokens.data(), tokens.size()}); }, "tokens"_a,
          "Tokens that the repetition penalty counts, u32 [n].")
      .def(
          "sample", [](Sampler& self, const Logits& logits) { return self.sample(logits_of(logits)); }, "logits"_a,
          "The next token of logits, f32 [vocab].")
      .def(
          "probabilities", [](Sampler& self, const Logits& logits) { return self.probabilities(logits_of(logits)); },
          "logits"_a, "What sample() draws from: a probability a token.");

  nb::class_<Tokenizer>(module, "Tokenizer", "Reads a Hugging Face tokenizer.json. Thread-safe.")
      .def(
          "__init__",
          [](Tokenizer* self, const std::string& path) { new (self) Tokenizer(unwrap(Tokenizer::open(path))); },
          "path"_a)
      .def_prop_ro("vocab_size", &Tokenizer::vocab_size)
      .def(
          "encode", [](const Tokenizer& self, const std::string& text) { return unwrap(self.encode(text)); }, "text"_a,
          "Token ids, without special tokens added.")
      .def(
          "decode",
          [](const Tokenizer& self, const std::vector<std::uint32_t>& ids, bool follows) {
            return self.decode(ids, follows);
          },
          "ids"_a, "follows"_a = false, "The text, special tokens left out. follows: behind other tokens.")
      .def("token", &Tokenizer::token, "id"_a, "A token by itself, special ones too; empty beyond the vocabulary.")
      .def(
          "decode_pieces",
          [](const Tokenizer& self, const std::vector<std::uint32_t>& ids, bool follows) {
            TextStream stream(self, follows);
            std::vector<std::string> pieces;
            for (const std::uint32_t id : ids) pieces.push_back(stream.push(id));
            pieces.push_back(stream.flush());
            return pieces;
          },
          "ids"_a, "follows"_a = false, "As decode, token by token: what each completes, and what is left at the end.");
}

}  // namespace edge::python
