#include "native/projection.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace edge::native {
namespace {

// Pieces that a thread takes of a matrix while one token is decoded: enough for cores of unequal speed, few enough for
// long streams.
constexpr std::size_t kPiecesPerThread = 3;
constexpr std::size_t kLeastRows = 16;
// Rows that one call takes while the next as many are on their way: fewer keep too little of the stream under way.
constexpr std::size_t kAhead = 64;
// A prompt's tile: its rows stay in the second cache, its tokens in the first.
constexpr std::size_t kTileRows = 64;
constexpr std::size_t kTileTokens = 16;

kernels::Rows rows_of(const Matrix& matrix, std::size_t first, std::size_t count) {
  const std::size_t scale_bytes = row_scale_bytes(matrix.dtype, matrix.columns);
  const std::byte* const scales = matrix.scales == nullptr ? nullptr : matrix.scales + first * scale_bytes;
  return {matrix.data + first * row_bytes(matrix.dtype, matrix.columns), scales, count, nullptr};
}

}  // namespace

std::byte* AlignedBytes::of_size(std::size_t bytes) {
  if (bytes_.size() < bytes + kAlignment) bytes_.resize(bytes + kAlignment);
  const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data());
  return bytes_.data() + (kAlignment - address % kAlignment) % kAlignment;
}

kernels::Tokens Projection::prepared(const Matrix& matrix, const float* x, std::size_t tokens) {
  const kernels::DTypeKernels& of = kernels_[matrix.dtype];
  if (of.prepare == nullptr) return {reinterpret_cast<const std::byte*>(x), matrix.columns * sizeof(float), tokens};
  const std::size_t stride = of.prepared_bytes(matrix.columns);
  std::byte* const bytes = bytes_.of_size(tokens * stride);
  const std::size_t tiles = (tokens + kTileTokens - 1) / kTileTokens;
  parallel_.run(tiles, [&](std::size_t tile) {
    for (std::size_t t = tile * kTileTokens; t < std::min(tokens, (tile + 1) * kTileTokens); ++t) {
      of.prepare(x + t * matrix.columns, matrix.columns, bytes + t * stride);
    }
  });
  return {bytes, stride, tokens};
}

void Projection::operator()(const Matrix& matrix, const float* x, std::size_t tokens, float* y) {
  const kernels::DTypeKernels& of = kernels_[matrix.dtype];
  const kernels::Tokens all = prepared(matrix, x, tokens);
  if (tokens == 1) {
    const std::size_t pieces = kPiecesPerThread * parallel_.threads();
    const std::size_t even = (matrix.rows + pieces - 1) / pieces;
    const std::size_t size = std::max((even + 3) / 4 * 4, kLeastRows);
    parallel_.run((matrix.rows + size - 1) / size, [&](std::size_t piece) {
      const std::size_t end = std::min((piece + 1) * size, matrix.rows);
      for (std::size_t first = piece * size; first < end; first += kAhead) {
        // What follows is asked for along the way: prefetchers of the hardware stop at the end of a page.
        const std::size_t following = std::min(first + kAhead, matrix.rows);
        const kernels::Rows next = rows_of(matrix, following, std::min(kAhead, matrix.rows - following));
        kernels::Rows rows = rows_of(matrix, first, std::min(kAhead, end - first));
        rows.next = &next;
        of.dot(rows, all, matrix.columns, y + first);
      }
    });
    return;
  }
  parallel_.run((matrix.rows + kTileRows - 1) / kTileRows, [&](std::size_t block) {
    const std::size_t first = block * kTileRows;
    const std::size_t count = std::min(kTileRows, matrix.rows - first);
    const kernels::Rows rows = rows_of(matrix, first, count);
    alignas(kAlignment) std::array<float, kTileRows * kTileTokens> tile;
    for (std::size_t t = 0; t < tokens; t += kTileTokens) {
      const std::size_t some = std::min(kTileTokens, tokens - t);
      of.dot(rows, {all.data + t * all.stride, all.stride, some}, matrix.columns, tile.data());
      for (std::size_t i = 0; i < some; ++i) {
        float* const to = y + (t + i) * matrix.rows + first;
        for (std::size_t row = 0; row < count; ++row) to[row] = tile[row * some + i];
      }
    }
  });
}

}  // namespace edge::native
