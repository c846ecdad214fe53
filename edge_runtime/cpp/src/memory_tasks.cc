#include "memory_tasks.h"

#include <cstdint>

namespace edge::memory {
namespace {

using kernels::Kernels;
using kernels::kMaxRows;
using kernels::kMaxTokens;

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

// A chunk's share of y for at most kMaxTokens tokens. `next` is the chunk that this thread probably takes afterwards,
// if any.
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

}  // namespace

float* aligned(float* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  const std::size_t floats = (kAlignment - address % kAlignment) % kAlignment / sizeof(float);
  return pointer + floats;
}

void run_chunks(const Kernels& kernels, const Chunks& chunks, const Activations& x, std::size_t first,
                std::size_t tokens, std::size_t d, float* y) {
  ask_for_scales(chunks[0], d);
  for (std::size_t i = 0; i < chunks.count(); ++i) {
    const Chunk next = i + 1 < chunks.count() ? chunks[i + 1] : Chunk{};
    add_chunk(kernels, chunks[i], next.block == nullptr ? nullptr : &next, x, first, tokens, d, i > 0, y);
  }
}

std::size_t MemoryTasks::partial_floats(const Chunks& chunks, std::size_t tokens, std::size_t d) {
  const std::size_t floats = chunks.count() * tokens * d;
  return (floats * sizeof(float) + kAlignment - 1) / kAlignment * (kAlignment / sizeof(float));
}

MemoryTasks::MemoryTasks(std::span<const MemoryRows> blocks, const float* x, std::size_t tokens, std::size_t d,
                         std::span<float> scratch, std::size_t threads)
    : kernels_(kernels::active_kernels()),
      chunks_(blocks),
      activations_(kernels_, blocks, x, tokens, d),
      tokens_(tokens),
      d_(d),
      count_(std::min({chunks_.count(), threads, kMaxShares})),
      partial_(aligned(scratch.data())) {
  activations_.place(reinterpret_cast<std::byte*>(partial_ + partial_floats(chunks_, tokens, d)));
  activations_.prepare(0, tokens);
  // Shares of as many rows, as nearly as chunks allow.
  std::uint32_t chunk = 0;
  std::size_t rows = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    const std::uint32_t begin = chunk;
    const std::size_t end = chunks_.rows() * (i + 1) / count_;
    while (chunk < chunks_.count() && rows + chunks_[chunk].count / 2 <= end) rows += chunks_[chunk++].count;
    shares_[i].left = Range{begin, chunk};
  }
}

std::optional<std::uint32_t> MemoryTasks::take(Share& share, bool front, Range& rest) {
  // Relaxed: chunks are read only, and the pool orders what they write before finish().
  Range left = share.left.load(std::memory_order_relaxed);
  do {
    if (left.begin == left.end) return std::nullopt;
    rest = front ? Range{left.begin + 1, left.end} : Range{left.begin, left.end - 1};
  } while (!share.left.compare_exchange_weak(left, rest, std::memory_order_relaxed));
  return front ? left.begin : rest.end;
}

void MemoryTasks::run_chunk(std::size_t index, bool continues) const {
  const Chunk next = continues ? chunks_[index + 1] : Chunk{};
  add_chunk(kernels_, chunks_[index], continues ? &next : nullptr, activations_, 0, tokens_, d_, false,
            partial_ + index * tokens_ * d_);
}

void MemoryTasks::run(std::size_t i) {
  Range rest;
  bool asked = false;  // for the chunk's scales
  while (const auto chunk = take(shares_[i], true, rest)) {
    if (!asked) ask_for_scales(chunks_[*chunk], d_);
    asked = rest.begin < rest.end;
    run_chunk(*chunk, asked);
  }
  for (std::size_t other = 1; other < count_; ++other) {
    while (const auto chunk = take(shares_[(i + other) % count_], false, rest)) {
      ask_for_scales(chunks_[*chunk], d_);
      run_chunk(*chunk, false);
    }
  }
}

void MemoryTasks::finish(float* y) const { kernels_.sum(partial_, chunks_.count(), tokens_ * d_, y); }

}  // namespace edge::memory
