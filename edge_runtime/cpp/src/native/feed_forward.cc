#include "native/feed_forward.h"

#include <algorithm>
#include <optional>

#include "memory_tasks.h"
#include "native/arithmetic.h"
#include "native/stored.h"

namespace edge::native {

void FeedForward::expand(const Layer& layer, const Inputs& x, const float* floats, std::span<const MemoryRows> memory) {
  const std::size_t d = x.columns();
  const std::size_t tokens = x.tokens();
  // Packed gates and ups of 32 neurons are two streams of about 16 KiB.
  const std::size_t size = is_packed(layer.gate.dtype) ? kernels::kPackedColumns : kTileRows;
  const std::size_t count = (layer.gate.rows + size - 1) / size;
  std::optional<memory::MemoryTasks> tasks;
  if (!memory.empty()) {
    added_.resize(tokens * d);
    const std::size_t needed = memory_ffn_scratch(memory, tokens, d);
    if (scratch_.size() < needed) scratch_.resize(needed);
    if (tokens <= memory::kSharedRowsTokens) {
      tasks.emplace(memory, floats, tokens, d, scratch_, parallel_.threads());
    } else {
      memory_ffn(memory, floats, tokens, d, added_.data(), scratch_, parallel_);
    }
  }
  // Memory first: its pieces are larger, and what is left at the end should be small.
  const std::size_t pieces = tasks ? tasks->count() : 0;
  parallel_.run(pieces + count, [&](std::size_t task) {
    if (task < pieces) {
      tasks->run(task);
      return;
    }
    alignas(kAlignment) std::array<float, kTileRows * kTileTokens> gates;
    alignas(kAlignment) std::array<float, kTileRows * kTileTokens> ups;
    const std::size_t first = (task - pieces) * size;
    const std::size_t neurons = std::min(size, layer.gate.rows - first);
    for (std::size_t t = 0; t < tokens; t += kTileTokens) {
      const std::size_t some = std::min(kTileTokens, tokens - t);
      products_.multiply(layer.gate, first, neurons, x, t, some, gates.data());
      products_.multiply(layer.up, first, neurons, x, t, some, ups.data());
      for (std::size_t i = 0; i < some; ++i) {
        float* const hidden = gates.data() + i * kTileRows;
        float* const up = ups.data() + i * kTileRows;
        if (layer.gate_bias != nullptr) {
          add_to(hidden, layer.gate_bias + first, neurons);
          add_to(up, layer.up_bias + first, neurons);
        }
        gate_(hidden, up, neurons);
        hidden_.set(t + i, first, neurons, hidden);
      }
    }
  });
  if (tasks) tasks->finish(added_.data());
}

void FeedForward::operator()(const Layer& layer, const Inputs& x, const float* floats,
                             std::span<const MemoryRows> memory, float* to) {
  const auto has_rows = [](const MemoryRows& block) { return block.rows > 0; };
  if (std::none_of(memory.begin(), memory.end(), has_rows)) memory = {};
  hidden_.shape(layer.down.dtype, layer.down.columns, x.tokens());
  expand(layer, x, floats, memory);
  const std::size_t d = x.columns();
  products_.run(layer.down, hidden_, parallel_, [&](const Tile& tile) {
    for (std::size_t t = 0; t < tile.tokens; ++t) {
      const std::size_t at = (tile.first_token + t) * d + tile.first_row;
      const float* const from = tile.values + t * kTileRows;
      for (std::size_t row = 0; row < tile.rows; ++row) {
        const float sum = to[at + row] + from[row];
        to[at + row] = memory.empty() ? sum : sum + added_[at + row];
      }
      if (layer.down_bias != nullptr) add_to(to + at, layer.down_bias + tile.first_row, tile.rows);
    }
  });
}

}  // namespace edge::native
