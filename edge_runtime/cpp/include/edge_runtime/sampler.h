// Chooses the next token from logits. The same options, tokens and logits give the same tokens on every machine: the
// draws are PCG32's (O'Neill 2014, XSH RR 64/32), the exponentials are computed here.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "edge_runtime/result.h"

namespace edge {

// Applied in this order, which is that of transformers' logits processors.
struct SamplingOptions {
  float repetition_penalty = 1;  // > 0; above 1 makes tokens that were accepted less likely
  float temperature = 0;         // >= 0; 0 takes the likeliest token, the lower id on a tie
  std::uint32_t top_k = 0;       // the k likeliest tokens only; 0 for all
  float top_p = 1;               // (0, 1]: the fewest of the likeliest tokens whose probabilities reach p together
  float min_p = 0;               // [0, 1]: tokens of at least min_p times the likeliest one's probability
  std::uint64_t seed = 0;        // of the draws
};

// Thread-compatible.
class Sampler {
 public:
  // kInvalidArgument: an option out of range.
  static Result<Sampler> create(const SamplingOptions& options);

  // Tokens that the text has so far; the repetition penalty is theirs. Each counts once.
  void accept(std::span<const std::uint32_t> tokens);

  // The next token. NaN counts as minus infinity; among infinite logits the lowest id wins. REQUIRES a logit.
  std::uint32_t sample(std::span<const float> logits);
  // What sample() would draw from, without a draw: a probability a token.
  std::vector<double> probabilities(std::span<const float> logits);

 private:
  struct Candidate {
    std::uint32_t token;
    float logit;
    double weight;  // its probability's share
  };

  explicit Sampler(const SamplingOptions& options);
  std::uint32_t next_random();
  void penalise(std::span<const float> logits);
  // Leaves the candidates that may be drawn, likeliest first where an option asks for an order, else by id; and the sum
  // of their weights. One that is the likeliest whatever is drawn is left alone.
  double narrow(std::span<const float> logits);
  void keep_likely();

  SamplingOptions options_;
  std::uint64_t state_ = 0;
  std::vector<bool> accepted_;
  std::vector<Candidate> candidates_;
};

}  // namespace edge
