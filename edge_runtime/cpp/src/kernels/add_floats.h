// Weighted sums of f32, f16 and bf16 rows over a vector type V: see vector_tiles.h for V, kernels.h for what `add`
// means.
//
// One token streams: rows are read from memory in order, four at a time, and y stays in the nearest cache. Several
// tokens hold y of 32 columns in registers while the rows, which are in cache then, go by. Both sum row by row from
// zero, so they give the same bits.
#pragma once

#include "kernels/dot_tiles.h"
#include "kernels/vector_tiles.h"

namespace edge::kernels {

inline constexpr std::size_t kAddColumns = 32;  // of a tile
inline constexpr std::size_t kAddRows = 4;      // that are streamed at once

// y[32] += the weighted sum of kRows rows of 32 columns.
template <class V, DType kType, std::size_t kRows>
void stream_columns(const std::byte* rows, std::size_t row_stride, const typename V::F (&weights)[kRows], float* y) {
  EDGE_UNROLL
  for (std::size_t at = 0; at < kAddColumns; at += V::kLanes) {
    typename V::F sum = V::load(y + at);
    EDGE_UNROLL
    for (std::size_t r = 0; r < kRows; ++r) {
      sum = V::fma(weights[r], load_columns<V, kType>(rows + r * row_stride, at), sum);
    }
    V::store(y + at, sum);
  }
}

template <class V, DType kType, std::size_t kRows>
void stream_rows(const std::byte* rows, const float* weights, std::size_t d, float* y) {
  const std::size_t stride = bytes_of<kType>(d);
  typename V::F weight[kRows];
  EDGE_UNROLL
  for (std::size_t r = 0; r < kRows; ++r) weight[r] = V::broadcast(weights[r]);
  std::size_t i = 0;
  for (; i + kAddColumns <= d; i += kAddColumns) {
    stream_columns<V, kType, kRows>(rows + bytes_of<kType>(i), stride, weight, y + i);
  }
  if (i < d) {
    alignas(64) std::byte padded[kRows][kAddColumns * sizeof(float)] = {};
    alignas(64) float padded_y[kAddColumns] = {};
    for (std::size_t r = 0; r < kRows; ++r) {
      std::memcpy(padded[r], rows + r * stride + bytes_of<kType>(i), bytes_of<kType>(d - i));
    }
    std::memcpy(padded_y, y + i, (d - i) * sizeof(float));
    stream_columns<V, kType, kRows>(padded[0], sizeof padded[0], weight, padded_y);
    std::memcpy(y + i, padded_y, (d - i) * sizeof(float));
  }
}

// y[32] of kTokens tokens (+)= sums, of which only `width` columns exist.
template <class V, std::size_t kTokens, std::size_t kVectors>
EDGE_INLINE void store_tile(const typename V::F (&sums)[kTokens][kVectors], std::size_t d, std::size_t width,
                            bool accumulate, float* y) {
  if (width == kAddColumns) {
    EDGE_UNROLL
    for (std::size_t t = 0; t < kTokens; ++t) {
      EDGE_UNROLL
      for (std::size_t v = 0; v < kVectors; ++v) {
        float* const to = y + t * d + v * V::kLanes;
        V::store(to, accumulate ? V::add(V::load(to), sums[t][v]) : sums[t][v]);
      }
    }
    return;
  }
  alignas(64) float padded[kTokens][kAddColumns];
  EDGE_UNROLL
  for (std::size_t t = 0; t < kTokens; ++t) {
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) V::store(padded[t] + v * V::kLanes, sums[t][v]);
  }
  for (std::size_t t = 0; t < kTokens; ++t) {
    for (std::size_t i = 0; i < width; ++i) y[t * d + i] = padded[t][i] + (accumulate ? y[t * d + i] : 0.0F);
  }
}

// kTokens tokens and `width` <= 32 columns: weights and y are of the first of them, `data` of the first row.
template <class V, DType kType, std::size_t kTokens>
void add_floats_tile(const std::byte* data, std::size_t rows, const float* weights, std::size_t weight_stride,
                     std::size_t d, std::size_t width, bool accumulate, float* y) {
  using F = typename V::F;
  constexpr std::size_t kVectors = kAddColumns / V::kLanes;
  F sums[kTokens][kVectors];
  EDGE_UNROLL
  for (std::size_t t = 0; t < kTokens; ++t) {
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) sums[t][v] = V::zero();
  }
  alignas(64) std::byte padded[kAddColumns * sizeof(float)] = {};
  for (std::size_t row = 0; row < rows; ++row) {
    const std::byte* from = data + row * bytes_of<kType>(d);
    if (width < kAddColumns) {
      std::memcpy(padded, from, bytes_of<kType>(width));
      from = padded;
    }
    F w[kVectors];
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) w[v] = load_columns<V, kType>(from, v * V::kLanes);
    EDGE_UNROLL
    for (std::size_t t = 0; t < kTokens; ++t) {
      const F weight = V::broadcast(weights[row * weight_stride + t]);
      EDGE_UNROLL
      for (std::size_t v = 0; v < kVectors; ++v) sums[t][v] = V::fma(weight, w[v], sums[t][v]);
    }
  }
  store_tile<V>(sums, d, width, accumulate, y);
}

template <class V, DType kType>
void add_floats(const Rows& rows, const float* h, std::size_t tokens, std::size_t d, bool accumulate, float* y) {
  if (tokens == 1 && !accumulate) {
    std::memset(y, 0, d * sizeof(float));
    Following following = following_of<kType>(rows, 0, d);
    const auto take = [&]<std::size_t kRows>(std::size_t row) {
      ask(following, kRows * bytes_of<kType>(d));
      stream_rows<V, kType, kRows>(rows.data + row * bytes_of<kType>(d), h + row, d, y);
    };
    std::size_t row = 0;
    for (; row + kAddRows <= rows.count; row += kAddRows) take.template operator()<kAddRows>(row);
    for (; row < rows.count; ++row) take.template operator()<1>(row);
    return;
  }
  for (std::size_t column = 0; column < d; column += kAddColumns) {
    const std::size_t width = d - column < kAddColumns ? d - column : kAddColumns;
    const auto take = [&]<std::size_t kTokens>(std::size_t token) {
      add_floats_tile<V, kType, kTokens>(rows.data + bytes_of<kType>(column), rows.count, h + token, tokens, d, width,
                                         accumulate, y + token * d + column);
    };
    std::size_t token = 0;
    for (; token + V::kAddTokens <= tokens; token += V::kAddTokens) take.template operator()<V::kAddTokens>(token);
    for (; token < tokens; ++token) take.template operator()<1>(token);
  }
}

}  // namespace edge::kernels
