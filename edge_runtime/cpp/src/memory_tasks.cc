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

void run_chunks(const Kernels& kernels, const Chunks& chunks, std::size_t begin, std::size_t end, const Activations& x,
                std::size_t first, std::size_t tokens, std::size_t d, std::size_t y_stride, float* y) {
  ask_for_scales(chunks[begin], d);
  for (std::size_t chunk = begin; chunk < end; ++chunk) {
    // Behind `end` too: whoever takes these chunks mostly takes those that follow.
    const Chunk next = chunk + 1 < chunks.count() ? chunks[chunk + 1] : Chunk{};
    const bool accumulate = y_stride == 0 && chunk > 0;
    add_chunk(kernels, chunks[chunk], next.block == nullptr ? nullptr : &next, x, first, tokens, d, accumulate,
              y + chunk * y_stride);
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
      runs_(std::min(chunks_.count(), kRunsPerThread * threads)),
      partial_(aligned(scratch.data())) {
  activations_.place(reinterpret_cast<std::byte*>(partial_ + partial_floats(chunks_, tokens, d)));
  activations_.prepare(0, tokens);
}

void MemoryTasks::run(std::size_t i) const {
  run_chunks(kernels_, chunks_, i * chunks_.count() / runs_, (i + 1) * chunks_.count() / runs_, activations_, 0,
             tokens_, d_, tokens_ * d_, partial_);
}

void MemoryTasks::finish(float* y) const { kernels_.sum(partial_, chunks_.count(), tokens_ * d_, y); }

}  // namespace edge::memory
