// FFN memory's rows in pieces, for a loop that shares them among threads: memory_ffn's own, and the native engine's,
// which runs them beside the neurons of the anchor.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "edge_runtime/memory_ffn.h"
#include "kernels/kernels.h"

namespace edge::memory {

inline constexpr std::size_t kAlignment = 64;
inline constexpr std::size_t kDTypes = 5;

// Up to this many tokens the threads share the rows: each chunk of rows has its own y, and these are summed in order.
// With more, the threads share the tokens, and nothing is left to be summed.
inline constexpr std::size_t kSharedRowsTokens = 3;
// Chunks of rows in a call, about: enough for cores of unequal speed, few enough for long streams and for the sum of
// their y, which other cores have written, to be short.
inline constexpr std::size_t kChunks = 8;
// Of a call's shares, as many as threads up to here.
inline constexpr std::size_t kMaxShares = 16;

// Consecutive rows of one block.
struct Chunk {
  const MemoryRows* block = nullptr;
  std::size_t first = 0;
  std::size_t count = 0;
};

// The blocks' rows in chunks, which depend on the blocks alone: they fix the order of every sum.
class Chunks {
 public:
  explicit Chunks(std::span<const MemoryRows> blocks) : blocks_(blocks) {
    for (const MemoryRows& block : blocks) rows_ += block.rows;
    const std::size_t even = (rows_ + kChunks - 1) / kChunks;
    size_ = std::clamp<std::size_t>((even + 3) / 4 * 4, 4, kernels::kMaxRows);
    for (const MemoryRows& block : blocks) count_ += count_of(block);
  }

  std::size_t count() const { return count_; }
  std::size_t rows() const { return rows_; }

  Chunk operator[](std::size_t index) const {
    const MemoryRows* block = blocks_.data();
    for (; index >= count_of(*block); ++block) index -= count_of(*block);
    // Whole fours suit the kernels; pieces of nearly one size suit whoever shares them.
    const std::size_t fours = (block->rows + 3) / 4;
    const auto border = [&](std::size_t i) { return std::min(i * fours / count_of(*block) * 4, block->rows); };
    return {block, border(index), border(index + 1) - border(index)};
  }

 private:
  std::size_t count_of(const MemoryRows& block) const { return (block.rows + size_ - 1) / size_; }

  std::span<const MemoryRows> blocks_;
  std::size_t rows_ = 0;
  std::size_t size_ = 0;
  std::size_t count_ = 0;
};

// Where the tokens lie in the form that each dtype's `dot` reads: f32 in place, or prepared in the scratch.
class Activations {
 public:
  Activations(const kernels::Kernels& kernels, std::span<const MemoryRows> blocks, const float* x, std::size_t tokens,
              std::size_t d)
      : kernels_(kernels), x_(x), d_(d) {
    for (const MemoryRows& block : blocks) {
      const auto index = static_cast<std::size_t>(block.dtype);
      if (kernels[block.dtype].prepare == nullptr || strides_[index] != 0) continue;
      strides_[index] = kernels[block.dtype].prepared_bytes(d);
      offsets_[index] = bytes_;
      bytes_ += strides_[index] * tokens;
    }
  }

  std::size_t bytes() const { return bytes_; }
  void place(std::byte* base) { base_ = base; }

  // Writes what `tokens` yields for these tokens, at most kMaxTokens.
  void prepare(std::size_t first, std::size_t count) const {
    for (std::size_t dtype = 0; dtype < kDTypes; ++dtype) {
      if (strides_[dtype] == 0) continue;
      kernels_.of[dtype].prepare(x_ + first * d_, count, d_, base_ + offsets_[dtype] + first * strides_[dtype]);
    }
  }

  kernels::Tokens tokens(DType dtype, std::size_t first, std::size_t count) const {
    const auto index = static_cast<std::size_t>(dtype);
    if (strides_[index] == 0) {
      return {reinterpret_cast<const std::byte*>(x_ + first * d_), d_ * sizeof(float), count};
    }
    return {base_ + offsets_[index] + first * strides_[index], strides_[index], count};
  }

 private:
  const kernels::Kernels& kernels_;
  const float* x_;
  std::size_t d_;
  std::size_t bytes_ = 0;
  std::byte* base_ = nullptr;
  std::array<std::size_t, kDTypes> strides_{};  // 0: not in use, or read in place
  std::array<std::size_t, kDTypes> offsets_{};
};

// All chunks one after another: y of `tokens` tokens from `first` on, at most kMaxTokens.
void run_chunks(const kernels::Kernels& kernels, const Chunks& chunks, const Activations& x, std::size_t first,
                std::size_t tokens, std::size_t d, float* y);

// A call of at most kSharedRowsTokens tokens. run() may be called by several threads at once, once for every
// i < count(), and then finish(). The constructor writes the scratch's prepared tokens.
//
// Each task has a share of the chunks, one stream of memory, and takes it from the front. Whoever is done takes from
// the back of the others' shares: threads may start late and cores differ in speed.
class MemoryTasks {
 public:
  // REQUIRES blocks with rows, which outlive it, and scratch as memory_ffn_scratch says. `threads` changes the shares,
  // not what is computed.
  MemoryTasks(std::span<const MemoryRows> blocks, const float* x, std::size_t tokens, std::size_t d,
              std::span<float> scratch, std::size_t threads);

  std::size_t count() const { return count_; }
  void run(std::size_t i);
  void finish(float* y) const;

  // The floats of scratch that the chunks' own y take, before the prepared tokens.
  static std::size_t partial_floats(const Chunks& chunks, std::size_t tokens, std::size_t d);

 private:
  struct Range {
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
  };
  // What is left of a share; on a line of its own, as threads write it.
  struct alignas(kAlignment) Share {
    std::atomic<Range> left;
  };
  // A chunk, unless none is left. `rest`: what is left then.
  static std::optional<std::uint32_t> take(Share& share, bool front, Range& rest);
  void run_chunk(std::size_t chunk, bool continues) const;

  const kernels::Kernels& kernels_;
  Chunks chunks_;
  Activations activations_;
  std::size_t tokens_;
  std::size_t d_;
  std::size_t count_;
  float* partial_;
  std::array<Share, kMaxShares> shares_;
};

// The first float of `pointer` that begins a cache line.
float* aligned(float* pointer);

}  // namespace edge::memory
