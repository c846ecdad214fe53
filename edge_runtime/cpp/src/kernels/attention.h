// Attention over a chunk of a cache, over a vector type V: see vector_tiles.h for V, kernels.h for what these mean.
//
// Keys lie kKeysTogether side by side, so that a lane is a key and no lane is ever added to another; values are rows,
// whose columns are lanes. Each sum grows in one lane, column by column or row by row, whatever the tile.
#pragma once

#include "kernels/vector_tiles.h"

namespace edge::kernels {

// One group of keys with kQueries of `count` queries, the first of which `queries` and `scores` begin with.
template <class V, DType kType, std::size_t kQueries>
void score_group(const std::byte* keys, const float* queries, std::size_t count, std::size_t d, float* scores) {
  using F = typename V::F;
  constexpr std::size_t kVectors = kKeysTogether / V::kLanes;
  F sums[kQueries][kVectors];
  EDGE_UNROLL
  for (std::size_t q = 0; q < kQueries; ++q) {
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) sums[q][v] = V::zero();
  }
  for (std::size_t i = 0; i < d; ++i, keys += bytes_of<kType>(kKeysTogether), queries += count) {
    F key[kVectors];
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) key[v] = load_columns<V, kType>(keys, v * V::kLanes);
    EDGE_UNROLL
    for (std::size_t q = 0; q < kQueries; ++q) {
      const F query = V::broadcast(queries[q]);
      EDGE_UNROLL
      for (std::size_t v = 0; v < kVectors; ++v) sums[q][v] = V::fma(key[v], query, sums[q][v]);
    }
  }
  EDGE_UNROLL
  for (std::size_t q = 0; q < kQueries; ++q) {
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) V::store(scores + q * kMaxRows + v * V::kLanes, sums[q][v]);
  }
}

// Group by group also for one query: the processor overlaps the sums of two, and the keys stay one stream of memory.
template <class V, DType kType>
void score(const std::byte* keys, std::size_t groups, const float* queries, std::size_t count, std::size_t d,
           float* scores) {
  constexpr std::size_t kMany = 2 * V::kAddTokens;
  for (std::size_t group = 0; group < groups; ++group) {
    const auto take = [&]<std::size_t kQueries>(std::size_t query) {
      score_group<V, kType, kQueries>(keys, queries + query, count, d, scores + query * kMaxRows);
    };
    std::size_t query = 0;
    for (; query + kMany <= count; query += kMany) take.template operator()<kMany>(query);
    for (; query < count; ++query) take.template operator()<1>(query);
    keys += bytes_of<kType>(d * kKeysTogether);
    scores += kKeysTogether;
  }
}

// kColumns columns of kQueries queries and at most kKeysTogether rows, `stride` bytes apart, whose sum begins at zero.
template <class V, DType kType, std::size_t kQueries, std::size_t kColumns>
void weigh_block(const std::byte* values, std::size_t stride, std::size_t rows, const float* weights, std::size_t d,
                 float* sums) {
  using F = typename V::F;
  constexpr std::size_t kVectors = kColumns / V::kLanes;
  F parts[kQueries][kVectors];
  EDGE_UNROLL
  for (std::size_t q = 0; q < kQueries; ++q) {
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) parts[q][v] = V::zero();
  }
  for (std::size_t row = 0; row < rows; ++row, values += stride) {
    F value[kVectors];
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) value[v] = load_columns<V, kType>(values, v * V::kLanes);
    EDGE_UNROLL
    for (std::size_t q = 0; q < kQueries; ++q) {
      const F weight = V::broadcast(weights[q * kMaxRows + row]);
      EDGE_UNROLL
      for (std::size_t v = 0; v < kVectors; ++v) parts[q][v] = V::fma(weight, value[v], parts[q][v]);
    }
  }
  EDGE_UNROLL
  for (std::size_t q = 0; q < kQueries; ++q) {
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) {
      float* const sum = sums + q * d + v * V::kLanes;
      V::store(sum, V::add(V::load(sum), parts[q][v]));
    }
  }
}

// The last columns of one query, fewer than kHalf: through padded copies.
template <class V, DType kType, std::size_t kHalf>
void weigh_tail(const std::byte* values, std::size_t stride, std::size_t rows, const float* weights, std::size_t width,
                float* sums) {
  constexpr std::size_t kBytes = bytes_of<kType>(kHalf);
  alignas(64) float padded[kHalf] = {};
  alignas(64) std::byte copies[kKeysTogether * kBytes] = {};
  for (std::size_t row = 0; row < rows; ++row) {
    std::memcpy(copies + row * kBytes, values + row * stride, bytes_of<kType>(width));
  }
  std::memcpy(padded, sums, width * sizeof(float));
  weigh_block<V, kType, 1, kHalf>(copies, kBytes, rows, weights, kHalf, padded);
  std::memcpy(sums, padded, width * sizeof(float));
}

template <class V, DType kType>
void weigh(const std::byte* values, std::size_t rows, const float* weights, const float* shrink, std::size_t count,
           std::size_t d, float* sums) {
  constexpr std::size_t kColumns = 32;
  constexpr std::size_t kHalf = kColumns / 2;
  const std::size_t stride = bytes_of<kType>(d);
  for (std::size_t query = 0; query < count; ++query) {
    if (shrink[query] == 1.0F) continue;
    for (std::size_t i = 0; i < d; ++i) sums[query * d + i] *= shrink[query];
  }
  for (std::size_t row = 0; row < rows; row += kKeysTogether) {
    const std::byte* const block = values + row * stride;
    const std::size_t some = rows - row < kKeysTogether ? rows - row : kKeysTogether;
    const auto along_queries = [&]<std::size_t kWidth>(std::size_t column) {
      const auto take = [&]<std::size_t kQueries>(std::size_t query) {
        weigh_block<V, kType, kQueries, kWidth>(block + bytes_of<kType>(column), stride, some,
                                                weights + query * kMaxRows + row, d, sums + query * d + column);
      };
      std::size_t query = 0;
      for (; query + V::kAddTokens <= count; query += V::kAddTokens) take.template operator()<V::kAddTokens>(query);
      for (; query < count; ++query) take.template operator()<1>(query);
    };
    std::size_t column = 0;
    for (; column + kColumns <= d; column += kColumns) along_queries.template operator()<kColumns>(column);
    if (column + kHalf <= d) {
      along_queries.template operator()<kHalf>(column);
      column += kHalf;
    }
    for (std::size_t query = 0; column < d && query < count; ++query) {
      weigh_tail<V, kType, kHalf>(block + bytes_of<kType>(column), stride, some, weights + query * kMaxRows + row,
                                  d - column, sums + query * d + column);
    }
  }
}

template <class V>
float soften(float* scores, float before, float* total) {
  using F = typename V::F;
  F most = V::broadcast(before);
  for (std::size_t i = 0; i < kMaxRows; i += V::kLanes) most = V::max(most, V::load(scores + i));
  const float largest = V::largest(most);
  const F shift = V::broadcast(largest);
  const F least = V::broadcast(-104.0F);
  F sum = V::zero();
  for (std::size_t i = 0; i < kMaxRows; i += V::kLanes) {
    const F power = V::sub(V::load(scores + i), shift);
    const F weight = V::zero_if_less(exp_of<V>(V::max(least, power)), power, least);
    V::store(scores + i, weight);
    sum = V::add(sum, weight);
  }
  *total = V::sum(sum);
  return largest;
}

}  // namespace edge::kernels
