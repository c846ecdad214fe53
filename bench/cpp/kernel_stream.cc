#include "kernel_stream.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "edge_runtime/lease_registry.h"
#include "edge_runtime/memory_ffn.h"
#include "spin_team.h"

namespace edge::bench {

Result<std::vector<double>> kernel_passes(std::span<const std::int64_t> handles, unsigned threads, unsigned rounds) {
  if (handles.empty()) return fail(ErrorCode::kInvalidArgument, "no lease to stream: fetch at least one path");
  std::vector<std::shared_ptr<MemorySource>> sources;  // their rows stay while these are held
  std::vector<std::vector<MemoryRows>> layers;
  std::size_t d = 0;
  std::size_t scratch_size = 0;
  for (const std::int64_t handle : handles) {
    const auto source = find_source(handle);
    if (!source) return tl::make_unexpected(source.error());
    sources.push_back(*source);
    d = (*source)->d_model();
    for (std::uint32_t layer = 0; layer < (*source)->layers(); ++layer) {
      auto& rows = layers.emplace_back();
      if (auto arrived = (*source)->layer(layer, rows); !arrived) return tl::make_unexpected(arrived.error());
      scratch_size = std::max(scratch_size, memory_ffn_scratch(rows, 1, d));
    }
  }
  std::vector<float> x(d);
  for (std::size_t i = 0; i < d; ++i) x[i] = static_cast<float>(i * 37 % 41) / 20 - 1;
  std::vector<float> y(d);
  std::vector<float> scratch(scratch_size);
  SpinTeam team(threads);
  std::vector<double> seconds;
  for (unsigned round = 0; round < rounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (const auto& rows : layers) memory_ffn(rows, x.data(), 1, d, y.data(), scratch, team);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return seconds;
}

}  // namespace edge::bench
