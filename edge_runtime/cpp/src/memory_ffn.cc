#include "edge_runtime/memory_ffn.h"

#include <algorithm>

#include "kernels/kernels.h"
#include "memory_tasks.h"

namespace edge {
namespace {

using memory::Activations;
using memory::Chunks;
using memory::MemoryTasks;

// Below this many products a call does not wake other threads.
constexpr std::size_t kSerialProducts = 32768;

}  // namespace

std::size_t memory_ffn_scratch(std::span<const MemoryRows> blocks, std::size_t tokens, std::size_t d) {
  const Activations activations(kernels::active_kernels(), blocks, nullptr, tokens, d);
  const bool shared_rows = tokens <= memory::kSharedRowsTokens;
  const std::size_t partial = shared_rows ? MemoryTasks::partial_floats(Chunks(blocks), tokens, d) : 0;
  return partial + activations.bytes() / sizeof(float) + memory::kAlignment / sizeof(float);
}

void memory_ffn(std::span<const MemoryRows> blocks, const float* x, std::size_t tokens, std::size_t d, float* y,
                std::span<float> scratch, Parallel& parallel) {
  const Chunks chunks(blocks);
  if (chunks.count() == 0 || tokens == 0) {
    std::fill_n(y, tokens * d, 0.0F);
    return;
  }
  Parallel& threads = chunks.rows() * 3 * d * tokens < kSerialProducts ? serial() : parallel;
  if (tokens <= memory::kSharedRowsTokens) {
    MemoryTasks tasks(blocks, x, tokens, d, scratch, threads.threads());
    threads.run(tasks.count(), [&](std::size_t i) { tasks.run(i); });
    tasks.finish(y);
    return;
  }
  const kernels::Kernels& kernels = kernels::active_kernels();
  Activations activations(kernels, blocks, x, tokens, d);
  activations.place(reinterpret_cast<std::byte*>(memory::aligned(scratch.data())));
  // Tiles as large as a full share of the work for every thread allows; whole fours suit the kernels.
  const std::size_t share = (tokens + threads.threads() - 1) / threads.threads();
  const std::size_t tile = std::min((share + 3) / 4 * 4, kernels::kMaxTokens);
  threads.run((tokens + tile - 1) / tile, [&](std::size_t index) {
    const std::size_t first = index * tile;
    const std::size_t count = std::min(tile, tokens - first);
    activations.prepare(first, count);
    memory::run_chunks(kernels, chunks, activations, first, count, d, y + first * d);
  });
}

}  // namespace edge
