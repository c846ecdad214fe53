#include "edge_runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

namespace edge {
namespace {

constexpr std::uint64_t kStream = 54;  // of PCG's, as its own demonstration uses
constexpr std::uint64_t kIncrement = (kStream << 1U) | 1U;

// e^x for x <= 0, of nothing but additions and products, whose results IEEE 754 defines: a library's exp differs in its
// last bits from one machine to another, and with it the token that a draw falls on.
double exp_negative(double x) {
  if (!(x > -700)) return 0;
  constexpr double kLog2E = 1.4426950408889634;
  constexpr double kLn2High = 0.693147180369123816490;
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  const double n = std::floor(x * kLog2E + 0.5);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double sum = 1;
  for (int i = 14; i > 0; --i) sum = 1 + sum * r / i;
  return std::ldexp(sum, static_cast<int>(n));
}

tl::unexpected<Error> refused(const char* name, double value, const char* range) {
  return fail(ErrorCode::kInvalidArgument, std::string(name) + " " + std::to_string(value) + ": it must be " + range);
}

}  // namespace

Result<Sampler> Sampler::create(const SamplingOptions& options) {
  const auto finite = [](float value) { return std::isfinite(value); };
  if (!(options.temperature >= 0 && finite(options.temperature))) {
    return refused("temperature", options.temperature, "0 or more");
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) return refused("top_p", options.top_p, "above 0 and at most 1");
  if (!(options.min_p >= 0 && options.min_p <= 1)) return refused("min_p", options.min_p, "0 to 1");
  if (!(options.repetition_penalty > 0 && finite(options.repetition_penalty))) {
    return refused("repetition_penalty", options.repetition_penalty, "above 0");
  }
  return Sampler(options);
}

Sampler::Sampler(const SamplingOptions& options) : options_(options) {
  next_random();
  state_ += options.seed;
  next_random();
}

std::uint32_t Sampler::next_random() {
  const std::uint64_t old = state_;
  state_ = old * 6364136223846793005ULL + kIncrement;
  const auto shifted = static_cast<std::uint32_t>(((old >> 18U) ^ old) >> 27U);
  const auto turn = static_cast<std::uint32_t>(old >> 59U);
  return (shifted >> turn) | (shifted << ((32U - turn) & 31U));
}

void Sampler::accept(std::span<const std::uint32_t> tokens) {
  for (const std::uint32_t token : tokens) {
    if (token >= accepted_.size()) accepted_.resize(token + std::size_t{1});
    accepted_[token] = true;
  }
}

void Sampler::penalise(std::span<const float> logits) {
  candidates_.resize(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    float logit = std::isnan(logits[i]) ? -std::numeric_limits<float>::infinity() : logits[i];
    if (options_.repetition_penalty != 1 && i < accepted_.size() && accepted_[i]) {
      logit = logit < 0 ? logit * options_.repetition_penalty : logit / options_.repetition_penalty;
    }
    candidates_[i] = {static_cast<std::uint32_t>(i), logit, 0};
  }
}

std::uint32_t Sampler::sample(std::span<const float> logits) {
  const double total = narrow(logits);
  if (candidates_.size() == 1) return candidates_.front().token;
  // 53 bits: a double holds no more below 1.
  const std::uint64_t high = next_random() >> 5U;
  const std::uint64_t low = next_random() >> 6U;
  double left = static_cast<double>(high << 26U | low) * 0x1p-53 * total;
  for (const Candidate& candidate : candidates_) {
    left -= candidate.weight;
    if (left < 0) return candidate.token;
  }
  // Rounding may leave a rest.
  const auto last = std::find_if(candidates_.rbegin(), candidates_.rend(), [](const auto& c) { return c.weight > 0; });
  return last->token;
}

std::vector<double> Sampler::probabilities(std::span<const float> logits) {
  const double total = narrow(logits);
  std::vector<double> all(logits.size());
  for (const Candidate& candidate : candidates_) all[candidate.token] = candidate.weight / total;
  return all;
}

double Sampler::narrow(std::span<const float> logits) {
  penalise(logits);
  const auto likeliest = *std::max_element(candidates_.begin(), candidates_.end(),
                                           [](const Candidate& a, const Candidate& b) { return a.logit < b.logit; });
  if (options_.temperature == 0 || !std::isfinite(likeliest.logit)) {
    candidates_ = {{likeliest.token, likeliest.logit, 1}};
    return 1;
  }
  const double highest = likeliest.logit;
  for (Candidate& candidate : candidates_) {
    candidate.weight = exp_negative((candidate.logit - highest) / static_cast<double>(options_.temperature));
  }
  keep_likely();
  return std::accumulate(candidates_.begin(), candidates_.end(), 0.0,
                         [](double sum, const Candidate& candidate) { return sum + candidate.weight; });
}

void Sampler::keep_likely() {
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  if (options_.top_k != 0 && options_.top_k < candidates_.size()) {
    const auto end = candidates_.begin() + options_.top_k;
    std::nth_element(candidates_.begin(), end, candidates_.end(), likelier);
    candidates_.erase(end, candidates_.end());
  }
  const bool ordered = options_.top_k != 0 || options_.top_p < 1;
  if (options_.top_p < 1) {
    // The sum must not depend on the order that nth_element left.
    if (options_.top_k != 0) std::sort(candidates_.begin(), candidates_.end(), likelier);
    double total = 0;
    for (const Candidate& candidate : candidates_) total += candidate.weight;
    // Sorted in growing parts: mostly a few tokens hold the probability, and the vocabulary is large.
    std::size_t sorted = 0;
    std::size_t kept = 0;
    double sum = 0;
    while (kept < candidates_.size() && (kept == 0 || sum < static_cast<double>(options_.top_p) * total)) {
      if (kept == sorted) {
        const std::size_t more = std::min(candidates_.size(), std::max<std::size_t>(64, 4 * sorted));
        std::partial_sort(candidates_.begin() + static_cast<std::ptrdiff_t>(sorted),
                          candidates_.begin() + static_cast<std::ptrdiff_t>(more), candidates_.end(), likelier);
        sorted = more;
      }
      sum += candidates_[kept++].weight;
    }
    candidates_.resize(kept);
  } else if (ordered) {
    std::sort(candidates_.begin(), candidates_.end(), likelier);
  }
  if (options_.min_p > 0) {
    // The likeliest token's weight is 1.
    std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < static_cast<double>(options_.min_p); });
  }
}

}  // namespace edge
