// Sums of weighted rows over a vector type V: see vector_tiles.h for V, kernels.h for what `add` means.
//
// One token streams: rows are read from memory in order, four at a time, and y stays in the nearest cache. Several
// tokens hold y of 32 columns in registers while the rows, which are in cache then, go by. Both sum row by row from
// zero, so they give the same bits.
#pragma once

#include "kernels/vector_tiles.h"

namespace edge::kernels {

inline constexpr std::size_t kStreamedRows = 4;
// Columns whose i4 scales are made floats at once while streaming: 16 groups, one vector at least.
inline constexpr std::size_t kStreamedColumns = 16 * kI4Group;

// The columns of one group of 32. `scale` is of i4 only: an i8 row's scale is part of its weight.
template <class V, DType kType>
void load_group(const std::byte* from, typename V::F scale, typename V::F (&out)[kI4Group / V::kLanes]) {
  if constexpr (kType == DType::kI4) {
    V::i4(from, scale, out);
  } else if constexpr (kType == DType::kI8) {
    V::i8(from, out);
  } else {
    EDGE_UNROLL
    for (std::size_t v = 0; v < kI4Group / V::kLanes; ++v) out[v] = load_columns<V, kType>(from, v * V::kLanes);
  }
}

// The f16 scales of `groups` groups as floats; at most `to` holds.
template <class V>
void load_scales(const std::byte* from, std::size_t groups, float* to) {
  std::size_t g = 0;
  for (; g + V::kLanes <= groups; g += V::kLanes) V::store(to + g, V::f16(from + g * 2));
  if (g < groups) store_tail<V>(to + g, load_tail<V, DType::kF16>(from, g, groups - g), groups - g);
}

// y[32] += the weighted sum of kRows rows of 32 columns.
template <class V, DType kType, std::size_t kRows>
void stream_group(const std::byte* rows, std::size_t row_stride, const typename V::F (&weights)[kRows],
                  const typename V::F (&scales)[kRows], float* y) {
  using F = typename V::F;
  constexpr std::size_t kVectors = kI4Group / V::kLanes;
  F sums[kVectors];
  EDGE_UNROLL
  for (std::size_t v = 0; v < kVectors; ++v) sums[v] = V::load(y + v * V::kLanes);
  EDGE_UNROLL
  for (std::size_t r = 0; r < kRows; ++r) {
    F w[kVectors];
    load_group<V, kType>(rows + r * row_stride, scales[r], w);
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) sums[v] = V::fma(weights[r], w[v], sums[v]);
  }
  EDGE_UNROLL
  for (std::size_t v = 0; v < kVectors; ++v) V::store(y + v * V::kLanes, sums[v]);
}

// The columns from `begin` to `end`, at most kStreamedColumns, of kRows rows.
template <class V, DType kType, std::size_t kRows>
void stream_rows(const std::byte* rows, std::size_t row_stride, const std::byte* scales, std::size_t scale_stride,
                 const float* weights, std::size_t begin, std::size_t end, float* y) {
  using F = typename V::F;
  F weight[kRows];
  F scale[kRows];
  EDGE_UNROLL
  for (std::size_t r = 0; r < kRows; ++r) {
    weight[r] = V::broadcast(weights[r]);
    scale[r] = V::zero();
  }
  alignas(64) float group_scales[kRows][kStreamedColumns / kI4Group];
  if constexpr (kType == DType::kI4) {
    for (std::size_t r = 0; r < kRows; ++r) {
      load_scales<V>(scales + r * scale_stride + begin / kI4Group * 2, (end - begin) / kI4Group, group_scales[r]);
    }
  }
  std::size_t i = begin;
  for (; i + kI4Group <= end; i += kI4Group) {
    EDGE_UNROLL
    for (std::size_t r = 0; r < kRows; ++r) {
      V::prefetch(rows + r * row_stride + bytes_of<kType>(i) + kPrefetchBytes);
      if constexpr (kType == DType::kI4) scale[r] = V::broadcast(group_scales[r][(i - begin) / kI4Group]);
    }
    stream_group<V, kType, kRows>(rows + bytes_of<kType>(i), row_stride, weight, scale, y + i);
  }
  if (i < end) {
    alignas(64) std::byte padded[kRows][kI4Group * 4] = {};
    alignas(64) float padded_y[kI4Group] = {};
    for (std::size_t r = 0; r < kRows; ++r) {
      std::memcpy(padded[r], rows + r * row_stride + bytes_of<kType>(i), bytes_of<kType>(end - i));
    }
    std::memcpy(padded_y, y + i, (end - i) * sizeof(float));
    stream_group<V, kType, kRows>(padded[0], sizeof padded[0], weight, scale, padded_y);
    std::memcpy(y + i, padded_y, (end - i) * sizeof(float));
  }
}

// y = the weighted sum of all rows.
template <class V, DType kType>
void stream(const Rows& rows, const float* weights, std::size_t d, float* y) {
  const std::size_t stride = bytes_of<kType>(d);
  const std::size_t scale_stride = kType == DType::kI4 ? d / kI4Group * 2 : 0;
  std::memset(y, 0, d * sizeof(float));
  const auto take = [&]<std::size_t kRows>(std::size_t row) {
    for (std::size_t begin = 0; begin < d; begin += kStreamedColumns) {
      const std::size_t end = d - begin < kStreamedColumns ? d : begin + kStreamedColumns;
      stream_rows<V, kType, kRows>(rows.data + row * stride, stride, rows.scales + row * scale_stride, scale_stride,
                                   weights + row, begin, end, y);
    }
  };
  std::size_t row = 0;
  for (; row + kStreamedRows <= rows.count; row += kStreamedRows) take.template operator()<kStreamedRows>(row);
  for (; row < rows.count; ++row) take.template operator()<1>(row);
}

// kTokens tokens, `width` <= 32 columns from `column` on. Sums stay in registers over all rows.
template <class V, DType kType, std::size_t kTokens>
void add_tile(const Rows& rows, std::size_t stride, const float* weights, std::size_t tokens, std::size_t token,
              std::size_t d, std::size_t column, std::size_t width, bool accumulate, float* y) {
  using F = typename V::F;
  constexpr std::size_t kVectors = kI4Group / V::kLanes;
  F sums[kTokens][kVectors];
  EDGE_UNROLL
  for (std::size_t t = 0; t < kTokens; ++t) {
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) sums[t][v] = V::zero();
  }
  alignas(64) std::byte padded[kI4Group * 4] = {};
  for (std::size_t row = 0; row < rows.count; ++row) {
    const std::byte* data = rows.data + row * stride + bytes_of<kType>(column);
    if (width < kI4Group) {
      std::memcpy(padded, data, bytes_of<kType>(width));
      data = padded;
    }
    F scale = V::zero();  // NOLINT(misc-const-correctness): not where the dtype has no scales a group
    if constexpr (kType == DType::kI4) {
      scale = V::broadcast_f16(rows.scales + (row * (d / kI4Group) + column / kI4Group) * 2);
    }
    F w[kVectors];
    load_group<V, kType>(data, scale, w);
    EDGE_UNROLL
    for (std::size_t t = 0; t < kTokens; ++t) {
      const F weight = V::broadcast(weights[row * tokens + token + t]);
      EDGE_UNROLL
      for (std::size_t v = 0; v < kVectors; ++v) sums[t][v] = V::fma(weight, w[v], sums[t][v]);
    }
  }
  for (std::size_t t = 0; t < kTokens; ++t) {
    float* to = y + (token + t) * d + column;
    for (std::size_t v = 0; v * V::kLanes < width; ++v) {
      const std::size_t left = width - v * V::kLanes;
      const std::size_t count = left < V::kLanes ? left : V::kLanes;
      F sum = sums[t][v];
      if (count == V::kLanes) {
        if (accumulate) sum = V::add(V::load(to + v * V::kLanes), sum);
        V::store(to + v * V::kLanes, sum);
      } else {
        const auto* before = reinterpret_cast<const std::byte*>(to);
        if (accumulate) sum = V::add(load_tail<V, DType::kF32>(before, v * V::kLanes, count), sum);
        store_tail<V>(to + v * V::kLanes, sum, count);
      }
    }
  }
}

template <class V, DType kType>
void add_rows(const Rows& rows, const float* h, std::size_t tokens, std::size_t d, bool accumulate, float* y) {
  alignas(64) float scaled[kMaxRows * kMaxTokens];
  const float* weights = h;
  if constexpr (kType == DType::kI8) {
    for (std::size_t row = 0; row < rows.count; ++row) {
      float scale = 0;
      std::memcpy(&scale, rows.scales + row * sizeof scale, sizeof scale);
      for (std::size_t t = 0; t < tokens; ++t) scaled[row * tokens + t] = h[row * tokens + t] * scale;
    }
    weights = scaled;
  }
  if (tokens == 1 && !accumulate) {
    stream<V, kType>(rows, weights, d, y);
    return;
  }
  const std::size_t stride = bytes_of<kType>(d);
  for (std::size_t column = 0; column < d; column += kI4Group) {
    const std::size_t width = d - column < kI4Group ? d - column : kI4Group;
    for_tiles<1, V::kAddTokens>(1, tokens, [&]<std::size_t, std::size_t kTokens>(std::size_t, std::size_t token) {
      add_tile<V, kType, kTokens>(rows, stride, weights, tokens, token, d, column, width, accumulate, y);
    });
  }
}

}  // namespace edge::kernels
