#include "native/attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "native/limits.h"

namespace edge::native {
namespace {

constexpr std::size_t kTogether = kernels::kKeysTogether;

// One group's heads for consecutive tokens, whose softmax grows with every chunk of keys: the chunks begin at multiples
// of kPositions, so that the order of all sums depends on nothing else.
class Queries {
 public:
  Queries(const kernels::Kernels& kernels, const KvCache& cache, std::size_t head_dim, std::size_t heads,
          std::size_t tokens)
      : kernels_(kernels),
        of_(kernels.attention[static_cast<std::size_t>(cache.dtype())]),
        dim_(head_dim),
        heads_(heads),
        count_(heads * tokens) {
    largest_.fill(-std::numeric_limits<float>::infinity());
    std::fill_n(sums_.begin(), count_ * dim_, 0.0F);
  }

  // The heads of one token: vectors one after another.
  void set(std::size_t token, const float* heads, float scale) {
    for (std::size_t head = 0; head < heads_; ++head) {
      float* const to = queries_.data() + token * heads_ + head;
      for (std::size_t i = 0; i < dim_; ++i) to[i * count_] = heads[head * dim_ + i] * scale;
    }
  }

  // `count` keys and values, of the positions from `begin` on; token t sees the last `window` before reach + t.
  void meet(const std::byte* keys, const std::byte* values, std::size_t count, std::size_t begin, std::size_t reach,
            std::size_t window) {
    of_.score(keys, (count + kTogether - 1) / kTogether, queries_.data(), count_, dim_, scores_.data());
    for (std::size_t q = 0; q < count_; ++q) {
      const std::size_t end = reach + q / heads_;
      const auto here = [&](std::size_t position) { return std::min(count, std::max(begin, position) - begin); };
      soften(q, here(end - std::min(end, window)), here(end));
    }
    of_.weigh(values, count, scores_.data(), shrink_.data(), count_, dim_, sums_.data());
  }

  void get(std::size_t token, float* heads) const {
    for (std::size_t head = 0; head < heads_; ++head) {
      const std::size_t q = token * heads_ + head;
      for (std::size_t i = 0; i < dim_; ++i) heads[head * dim_ + i] = sums_[q * dim_ + i] / totals_[q];
    }
  }

 private:
  // Makes weights of a query's scores, of which it sees [begin, end), and notes by what earlier sums shrink.
  void soften(std::size_t q, std::size_t begin, std::size_t end) {
    float* const scores = scores_.data() + q * kPositions;
    shrink_[q] = 1;
    if (begin >= end) {
      std::fill_n(scores, kPositions, 0.0F);
      return;
    }
    constexpr float kUnseen = -std::numeric_limits<float>::infinity();
    std::fill_n(scores, begin, kUnseen);
    std::fill(scores + end, scores + kPositions, kUnseen);
    float total = 0;
    const float largest = kernels_.soften(scores, largest_[q], &total);
    if (largest != largest_[q]) shrink_[q] = std::exp(largest_[q] - largest);
    largest_[q] = largest;
    totals_[q] = totals_[q] * shrink_[q] + total;
  }

  const kernels::Kernels& kernels_;
  const kernels::AttentionKernels& of_;
  std::size_t dim_;
  std::size_t heads_;
  std::size_t count_;
  alignas(kAlignment) std::array<float, kMostQueries * kMostHeadDim> queries_;  // [dim_, count_]
  alignas(kAlignment) std::array<float, kMostQueries * kMostHeadDim> sums_;
  alignas(kAlignment) std::array<float, kMostQueries * kPositions> scores_;
  std::array<float, kMostQueries> largest_;
  std::array<float, kMostQueries> shrink_{};
  std::array<float, kMostQueries> totals_{};
};

std::size_t whole_groups(std::size_t positions) { return (positions + kTogether - 1) / kTogether * kTogether; }

}  // namespace

KvCache::KvCache(const NativeConfig& config, DType dtype)
    : dtype_(dtype),
      heads_(config.kv_heads),
      head_dim_(config.head_dim),
      head_bytes_(row_bytes(dtype, config.head_dim) * whole_groups(config.context_length)),
      data_(new std::byte[bytes(config, dtype)]) {}

std::uint64_t KvCache::bytes(const NativeConfig& config, DType dtype) {
  return std::uint64_t{2} * config.layers * config.kv_heads * row_bytes(dtype, config.head_dim) *
         whole_groups(config.context_length);
}

void KvCache::store_key(const kernels::Kernels& kernels, std::byte* keys, std::size_t position,
                        const float* key) const {
  alignas(kAlignment) std::array<std::byte, kMostHeadDim * sizeof(float)> row;
  convert(kernels, key, row.data());
  const std::size_t lane = position % kTogether;
  const std::size_t size = row_bytes(dtype_, 1);
  std::byte* const to = keys + (position - lane) * row_bytes(dtype_, head_dim_) + lane * size;
  for (std::size_t i = 0; i < head_dim_; ++i) std::memcpy(to + i * kTogether * size, row.data() + i * size, size);
}

void KvCache::store_value(const kernels::Kernels& kernels, std::byte* values, std::size_t position,
                          const float* value) const {
  convert(kernels, value, values + position * row_bytes(dtype_, head_dim_));
}

void KvCache::convert(const kernels::Kernels& kernels, const float* vector, std::byte* out) const {
  if (dtype_ == DType::kF32) {
    std::memcpy(out, vector, head_dim_ * sizeof(float));
  } else {
    kernels.to_f16(vector, head_dim_, out);
  }
}

void attend(const kernels::Kernels& kernels, const NativeConfig& config, const KvCache& cache, std::size_t layer,
            const float* queries, std::size_t tokens, std::size_t position, float* out, Parallel& parallel) {
  const std::size_t group = config.heads / config.kv_heads;
  const std::size_t together = std::min(kMostQueries / group, tokens);
  const std::size_t parts = (tokens + together - 1) / together;
  const std::size_t dim = config.head_dim;
  const std::size_t width = config.query_width();
  const std::size_t key_bytes = row_bytes(cache.dtype(), dim);
  const std::size_t window = config.options[layer].window;
  parallel.run(parts * config.kv_heads, [&](std::size_t task) {
    const std::size_t head = task % config.kv_heads;
    // The last tokens see most: they come first, so that what is left at the end is small.
    const std::size_t first = (parts - 1 - task / config.kv_heads) * together;
    const std::size_t count = std::min(together, tokens - first);
    const std::size_t column = head * group * dim;
    Queries some(kernels, cache, dim, group, count);
    for (std::size_t t = 0; t < count; ++t) some.set(t, queries + (first + t) * width + column, config.attention_scale);
    const std::byte* const keys = cache.keys(layer, head);
    const std::byte* const values = cache.values(layer, head);
    const std::size_t end = position + first + count;
    // A chunk that nobody sees changes no bit: which of them are left out may depend on the tokens of this task.
    const std::size_t reach = position + first + 1;
    const std::size_t seen = reach - std::min(reach, window);
    for (std::size_t begin = seen / kPositions * kPositions; begin < end; begin += kPositions) {
      some.meet(keys + begin * key_bytes, values + begin * key_bytes, std::min(kPositions, end - begin), begin, reach,
                window);
    }
    for (std::size_t t = 0; t < count; ++t) some.get(t, out + (first + t) * width + column);
  });
}

}  // namespace edge::native
