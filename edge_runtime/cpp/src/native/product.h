// Products of a matrix with tokens, in pieces that threads share.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "edge_runtime/parallel.h"
#include "kernels/kernels.h"
#include "native/inputs.h"
#include "native/limits.h"
#include "native/weights.h"

namespace edge::native {

// The rows that a task takes, and the tokens that meet them at once: a tile's results stay in the nearest cache.
inline constexpr std::size_t kTileRows = 64;
inline constexpr std::size_t kTileTokens = 16;

// Results of a tile: of token t and row r at [t * kTileRows + r].
struct Tile {
  std::size_t first_row = 0;
  std::size_t rows = 0;
  std::size_t first_token = 0;
  std::size_t tokens = 0;
  const float* values = nullptr;
};

class Products {
 public:
  Products(const kernels::Kernels& floats, const kernels::PackedKernels& packed) : floats_(floats), packed_(packed) {}

  // Rows of a task: a multiple of 16, at most kTileRows, about 16 KiB of packed rows.
  static std::size_t task_rows(const Matrix& matrix);

  // y[t * kTileRows + r] = row (first_row + r) . input (first_token + t). REQUIRES first_row % 16 == 0, at most
  // kTileRows rows and kTileTokens tokens; y has room for a whole tile.
  void multiply(const Matrix& matrix, std::size_t first_row, std::size_t rows, const Inputs& inputs,
                std::size_t first_token, std::size_t tokens, float* y) const;

  // All rows with all tokens: use(tile) for each, on any thread.
  template <typename Use>
  void run(const Matrix& matrix, const Inputs& inputs, Parallel& parallel, const Use& use) const {
    const std::size_t size = task_rows(matrix);
    parallel.run((matrix.rows + size - 1) / size, [&](std::size_t task) {
      alignas(kAlignment) std::array<float, kTileRows * kTileTokens> y;
      const std::size_t rows = std::min(size, matrix.rows - task * size);
      for (std::size_t t = 0; t < inputs.tokens(); t += kTileTokens) {
        const std::size_t tokens = std::min(kTileTokens, inputs.tokens() - t);
        multiply(matrix, task * size, rows, inputs, t, tokens, y.data());
        use(Tile{task * size, rows, t, tokens, y.data()});
      }
    });
  }

 private:
  const kernels::Kernels& floats_;
  const kernels::PackedKernels& packed_;
};

}  // namespace edge::native
