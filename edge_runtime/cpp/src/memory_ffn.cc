#include "edge_runtime/memory_ffn.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/kernels.h"

namespace edge {
namespace {

using kernels::Kernels;
using kernels::kMaxRows;
using kernels::kMaxTokens;

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kDTypes = 5;

// Up to this many tokens the threads share the rows: each chunk of rows has its own y, and these are summed in order.
// With more, the threads share the tokens, and nothing is left to be summed.
constexpr std::size_t kSharedRowsTokens = 3;
// Chunks of rows in a call, about: enough for cores of unequal speed, few enough for long streams and for the sum of
// their y, which other cores have written, to be short.
constexpr std::size_t kChunks = 8;
// What a thread takes at once while rows are shared: runs of chunks, so that most of its reading is one stream.
constexpr std::size_t kRunsPerThread = 2;
// Below this many products a call does not wake other threads.
constexpr std::size_t kSerialProducts = 32768;

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
    size_ = std::clamp<std::size_t>((even + 3) / 4 * 4, 4, kMaxRows);
    for (const MemoryRows& block : blocks) count_ += count_of(block);
  }

  std::size_t count() const { return count_; }
  std::size_t rows() const { return rows_; }

  Chunk operator[](std::size_t index) const {
    const MemoryRows* block = blocks_.data();
    for (; index >= count_of(*block); ++block) index -= count_of(*block);
    const std::size_t first = index * size_;
    return {block, first, std::min(size_, block->rows - first)};
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
  Activations(const Kernels& kernels, std::span<const MemoryRows> blocks, const float* x, std::size_t tokens,
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

  // Writes what `tokens` yields for these tokens.
  void prepare(std::size_t first, std::size_t count) const {
    for (std::size_t dtype = 0; dtype < kDTypes; ++dtype) {
      if (strides_[dtype] == 0) continue;
      for (std::size_t token = first; token < first + count; ++token) {
        kernels_.of[dtype].prepare(x_ + token * d_, d_, base_ + offsets_[dtype] + token * strides_[dtype]);
      }
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
  const Kernels& kernels_;
  const float* x_;
  std::size_t d_;
  std::size_t bytes_ = 0;
  std::byte* base_ = nullptr;
  std::array<std::size_t, kDTypes> strides_{};  // 0: not in use, or read in place
  std::array<std::size_t, kDTypes> offsets_{};
};

kernels::Rows rows_of(const Chunk& chunk, std::size_t matrix, std::size_t d, const kernels::Rows* next) {
  const MemoryRows& block = *chunk.block;
  const std::size_t first = matrix * block.rows + chunk.first;
  const std::byte* scales = block.scales == nullptr ? nullptr : block.scales + first * row_scale_bytes(block.dtype, d);
  return {block.data + first * row_bytes(block.dtype, d), scales, chunk.count, next};
}

// Scales are small streams of their own, too short for the hardware to follow: a chunk's are asked for before its turn.
void ask_for_scales(const Chunk& chunk, std::size_t d) {
  if (chunk.block->scales == nullptr) return;
  const std::size_t bytes = chunk.count * row_scale_bytes(chunk.block->dtype, d);
  for (std::size_t matrix = 0; matrix < 3; ++matrix) {
    const std::size_t row = matrix * chunk.block->rows + chunk.first;
    const std::byte* const scales = chunk.block->scales + row * row_scale_bytes(chunk.block->dtype, d);
    for (std::size_t i = 0; i < bytes; i += kAlignment) __builtin_prefetch(scales + i);
  }
}

// A chunk's share of y for at most kMaxTokens tokens. `next` is the chunk that this thread takes afterwards, if any.
void add_chunk(const Kernels& kernels, const Chunk& chunk, const Chunk* next, const Activations& x, std::size_t first,
               std::size_t tokens, std::size_t d, bool accumulate, float* y) {
  alignas(kAlignment) std::array<float, kMaxRows * kMaxTokens> gate;
  alignas(kAlignment) std::array<float, kMaxRows * kMaxTokens> up;
  const kernels::DTypeKernels& of = kernels[chunk.block->dtype];
  const kernels::Tokens inputs = x.tokens(chunk.block->dtype, first, tokens);
  const bool continues = next != nullptr && next->block->dtype == chunk.block->dtype;
  const kernels::Rows w1_of_next = continues ? rows_of(*next, 0, d, nullptr) : kernels::Rows{};
  const kernels::Rows w3 = rows_of(chunk, 2, d, continues ? &w1_of_next : nullptr);
  const kernels::Rows w2 = rows_of(chunk, 1, d, &w3);
  const kernels::Rows w1 = rows_of(chunk, 0, d, &w2);
  if (next != nullptr) ask_for_scales(*next, d);
  of.dot(w1, inputs, d, gate.data());
  of.dot(w2, inputs, d, up.data());
  kernels.swiglu(gate.data(), up.data(), chunk.count * tokens);
  of.add(w3, gate.data(), tokens, d, accumulate, y);
}

// The floats that the chunks' own y take, before the prepared tokens.
std::size_t partial_floats(const Chunks& chunks, std::size_t tokens, std::size_t d) {
  const std::size_t floats = tokens <= kSharedRowsTokens ? chunks.count() * tokens * d : 0;
  return (floats * sizeof(float) + kAlignment - 1) / kAlignment * (kAlignment / sizeof(float));
}

float* aligned(float* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  const std::size_t floats = (kAlignment - address % kAlignment) % kAlignment / sizeof(float);
  return pointer + floats;
}

}  // namespace

std::size_t memory_ffn_scratch(std::span<const MemoryRows> blocks, std::size_t tokens, std::size_t d) {
  const Activations activations(kernels::active_kernels(), blocks, nullptr, tokens, d);
  return partial_floats(Chunks(blocks), tokens, d) + activations.bytes() / sizeof(float) + kAlignment / sizeof(float);
}

void memory_ffn(std::span<const MemoryRows> blocks, const float* x, std::size_t tokens, std::size_t d, float* y,
                std::span<float> scratch, Parallel& parallel) {
  const Chunks chunks(blocks);
  if (chunks.count() == 0 || tokens == 0) {
    std::fill_n(y, tokens * d, 0.0F);
    return;
  }
  const Kernels& kernels = kernels::active_kernels();
  Parallel& threads = chunks.rows() * 3 * d * tokens < kSerialProducts ? serial() : parallel;
  float* const partial = aligned(scratch.data());
  Activations activations(kernels, blocks, x, tokens, d);
  activations.place(reinterpret_cast<std::byte*>(partial + partial_floats(chunks, tokens, d)));

  const auto add_chunks = [&](std::size_t begin, std::size_t end, const auto& add) {
    ask_for_scales(chunks[begin], d);
    for (std::size_t chunk = begin; chunk < end; ++chunk) {
      const Chunk next = chunk + 1 < end ? chunks[chunk + 1] : Chunk{};
      add(chunk, chunks[chunk], next.block == nullptr ? nullptr : &next);
    }
  };
  if (tokens <= kSharedRowsTokens) {
    activations.prepare(0, tokens);
    // A few runs of chunks for each thread.
    const std::size_t runs = std::min(chunks.count(), kRunsPerThread * threads.threads());
    threads.run(runs, [&](std::size_t run) {
      add_chunks(run * chunks.count() / runs, (run + 1) * chunks.count() / runs,
                 [&](std::size_t index, const Chunk& chunk, const Chunk* next) {
                   add_chunk(kernels, chunk, next, activations, 0, tokens, d, false, partial + index * tokens * d);
                 });
    });
    kernels.sum(partial, chunks.count(), tokens * d, y);
    return;
  }
  // Tiles as large as a full share of the work for every thread allows; whole fours suit the kernels.
  const std::size_t share = (tokens + threads.threads() - 1) / threads.threads();
  const std::size_t tile = std::min((share + 3) / 4 * 4, kMaxTokens);
  threads.run((tokens + tile - 1) / tile, [&](std::size_t index) {
    const std::size_t first = index * tile;
    const std::size_t count = std::min(tile, tokens - first);
    activations.prepare(first, count);
    add_chunks(0, chunks.count(), [&](std::size_t chunk_index, const Chunk& chunk, const Chunk* next) {
      add_chunk(kernels, chunk, next, activations, first, count, d, chunk_index > 0, y + first * d);
    });
  });
}

}  // namespace edge
