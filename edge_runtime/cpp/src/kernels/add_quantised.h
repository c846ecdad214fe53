// Weighted sums of i8 and i4 rows, in integers: the weight of a row, or of a row's group, is h times its scale, rounded
// to 16 bits of the largest one that meets the same columns. So two rows' products with a column are one instruction,
// where f32 would take a conversion and a multiplication for each.
//
// V gives for this: I, a vector of kLanes 32-bit integers; as_floats and as_ints, the same bits; zero_ints, to_ints
// (rounds), add_ints, times_minus_8, pack (two vectors as the halves of each integer); magnitude_max and zero_if_less
// (value < bound ? 0 : v), which let NaN through; pair<kType>, 32 columns of two rows (i4 as it is stored, q + 8);
// accumulate(pair, the weights of both rows, sums); in_order<kType>, the sums as floats in the order of columns.
// Where V says kAddsQuads, its stream_quads takes the place of stream_quantised.
#pragma once

#include <cstdint>

#include "kernels/add_floats.h"

namespace edge::kernels {

// Weights of kSlots groups for one token, or of one group for kSlots tokens.
template <std::size_t kSlots>
struct Weights {
  alignas(64) float pairs[kMaxRows / 2][kSlots];  // bits: rows 2p and 2p + 1, 16 each
  alignas(64) float start[kSlots];                // bits: where sums begin, as i4 is stored with + 8
  alignas(64) float scale[kSlots];                // of the sums
};

// How the weights of kLanes slots are rounded: q = round(weight * inverse), weight = q * scale.
template <class V>
struct Rounding {
  typename V::F inverse;
  typename V::F scale;
};
template <class V, class Weight>
Rounding<V> rounding_of(std::size_t rows, const Weight& weight) {
  using F = typename V::F;
  F largest = V::zero();
  for (std::size_t row = 0; row < rows; ++row) largest = V::magnitude_max(largest, weight(row));
  const F limit = V::broadcast(static_cast<float>(kActivationLimit));
  const F smallest = V::broadcast(kSmallestActivation);
  // largest - largest is NaN where largest is not finite.
  const F scale = V::add(V::div(largest, limit), V::sub(largest, largest));
  return {V::zero_if_less(V::div(limit, largest), largest, smallest), V::zero_if_less(scale, largest, smallest)};
}

// Rounds kLanes slots from `slot` on; weight(row) gives them.
template <class V, DType kType, std::size_t kSlots, class Weight>
void round_weights(std::size_t rows, std::size_t slot, const Weight& weight, Weights<kSlots>& to) {
  using I = typename V::I;
  const Rounding<V> rounding = rounding_of<V>(rows, weight);
  V::store(to.scale + slot, rounding.scale);
  I sum = V::zero_ints();
  for (std::size_t row = 0; row < rows; row += 2) {
    const I first = V::to_ints(V::mul(weight(row), rounding.inverse));
    const I second = row + 1 < rows ? V::to_ints(V::mul(weight(row + 1), rounding.inverse)) : V::zero_ints();
    V::store(to.pairs[row / 2] + slot, V::as_floats(V::pack(first, second)));
    sum = V::add_ints(sum, V::add_ints(first, second));
  }
  V::store(to.start + slot, V::as_floats(kType == DType::kI4 ? V::times_minus_8(sum) : V::zero_ints()));
}

// The float weights of kLanes slots, for round_weights.
template <class V, DType kType>
auto weights_of_groups(const Rows& rows, const float* h, std::size_t d, std::size_t group, std::size_t groups) {
  return [=, &rows](std::size_t row) {
    const auto by = V::broadcast(h[row]);
    const std::byte* const scales = rows.scales + row * scale_bytes_of<kType>(d);
    if constexpr (kType == DType::kI8) {
      return V::mul(by, V::broadcast(load_float(scales)));
    } else {
      return V::mul(by, groups < V::kLanes ? load_tail<V, DType::kF16>(scales, group, groups)
                                           : load_columns<V, DType::kF16>(scales, group));
    }
  };
}
template <class V, DType kType>
auto weights_of_tokens(const Rows& rows, const float* h, std::size_t tokens, std::size_t token, std::size_t d,
                       std::size_t group) {
  return [=, &rows](std::size_t row) {
    const auto* const from = reinterpret_cast<const std::byte*>(h + row * tokens);
    const std::byte* const scales = rows.scales + row * scale_bytes_of<kType>(d);
    const auto by = tokens - token < V::kLanes ? load_tail<V, DType::kF32>(from, token, tokens - token)
                                               : load_columns<V, DType::kF32>(from, token);
    if constexpr (kType == DType::kI8) {
      return V::mul(by, V::broadcast(load_float(scales)));
    } else {
      return V::mul(by, V::broadcast_f16(scales + group * 2));
    }
  };
}

// The columns of one group against `rows` <= 2 * kPairs rows, sums in `place` as bits. A last row without a partner
// meets itself, with the weight 0.
template <class V, DType kType, std::size_t kPairs>
void stream_group(const std::byte* data, std::size_t stride, std::size_t rows, const float* weights,
                  std::size_t weight_stride, float* place) {
  constexpr std::size_t kVectors = kAddColumns / V::kLanes;
  typename V::I sums[kVectors];
  EDGE_UNROLL
  for (std::size_t v = 0; v < kVectors; ++v) sums[v] = V::as_ints(V::load(place + v * V::kLanes));
  EDGE_UNROLL
  for (std::size_t p = 0; p < kPairs; ++p) {
    const std::byte* const first = data + 2 * p * stride;
    const std::byte* const second = 2 * p + 1 < rows ? first + stride : first;
    V::accumulate(V::template pair<kType>(first, second), weights + p * weight_stride, sums);
  }
  EDGE_UNROLL
  for (std::size_t v = 0; v < kVectors; ++v) V::store(place + v * V::kLanes, V::as_floats(sums[v]));
}

template <class V, DType kType>
void finish_group(float scale, float* place) {
  constexpr std::size_t kVectors = kAddColumns / V::kLanes;
  typename V::I sums[kVectors];
  typename V::F values[kVectors];
  EDGE_UNROLL
  for (std::size_t v = 0; v < kVectors; ++v) sums[v] = V::as_ints(V::load(place + v * V::kLanes));
  V::template in_order<kType>(sums, values);
  EDGE_UNROLL
  for (std::size_t v = 0; v < kVectors; ++v) V::store(place + v * V::kLanes, V::mul(values[v], V::broadcast(scale)));
}

// One token, columns from `begin` to `end`: rows in order, two pairs at a time. Sums lie in y as integers until all
// rows are in, those of a tail of less than 32 columns in a place of their own.
template <class V, DType kType>
void stream_quantised(const Rows& rows, const float* h, std::size_t d, std::size_t begin, std::size_t end, float* y) {
  constexpr std::size_t kSlots = kType == DType::kI4 ? kSegment / kI4Group : V::kLanes;
  const std::size_t stride = bytes_of<kType>(d);
  const std::size_t whole = begin + (end - begin) / kAddColumns * kAddColumns;
  const auto slot_of = [&](std::size_t column) { return kType == DType::kI4 ? (column - begin) / kI4Group : 0; };
  Weights<kSlots> weights;
  const std::size_t slots = kType == DType::kI4 ? (end - begin) / kI4Group : 1;
  for (std::size_t slot = 0; slot < slots; slot += V::kLanes) {
    round_weights<V, kType>(rows.count, slot,
                            weights_of_groups<V, kType>(rows, h, d, begin / kI4Group + slot, slots - slot), weights);
  }
  alignas(64) float tail[kAddColumns];
  for (std::size_t i = begin; i < end; i += kAddColumns) {
    for (std::size_t k = 0; k < kAddColumns; k += V::kLanes) {
      V::store((i < whole ? y + i : tail) + k, V::broadcast(weights.start[slot_of(i)]));
    }
  }
  Following following = following_of<kType>(rows, begin, end);
  const auto take = [&]<std::size_t kPairs>(std::size_t row, std::size_t count) {
    constexpr std::size_t kStep = 2 * kPairs * bytes_of<kType>(kAddColumns);
    const std::byte* const data = rows.data + row * stride;
    const float* const pairs = weights.pairs[row / 2];
    for (std::size_t i = begin; i < whole; i += kAddColumns) {
      ask(following, kStep);
      stream_group<V, kType, kPairs>(data + bytes_of<kType>(i), stride, count, pairs + slot_of(i), kSlots, y + i);
    }
    if (whole < end) {
      alignas(64) std::byte padded[2 * kPairs][kAddColumns] = {};
      for (std::size_t r = 0; r < count; ++r) {
        std::memcpy(padded[r], data + r * stride + bytes_of<kType>(whole), bytes_of<kType>(end - whole));
      }
      stream_group<V, kType, kPairs>(padded[0], sizeof padded[0], count, pairs, kSlots, tail);
    }
  };
  std::size_t row = 0;
  for (; row + 4 <= rows.count; row += 4) take.template operator()<2>(row, 4);
  for (; row < rows.count; row += 2) take.template operator()<1>(row, rows.count - row < 2 ? 1 : 2);
  for (std::size_t i = begin; i < whole; i += kAddColumns) finish_group<V, kType>(weights.scale[slot_of(i)], y + i);
  if (whole < end) {
    finish_group<V, kType>(weights.scale[0], tail);
    std::memcpy(y + whole, tail, (end - whole) * sizeof(float));
  }
}

// kTokens tokens and `width` <= 32 columns: weights and y are of the first of them, `data` of the first row.
template <class V, DType kType, std::size_t kTokens>
void add_quantised_tile(const std::byte* data, std::size_t rows, const Weights<kMaxTokens>& weights, std::size_t token,
                        std::size_t d, std::size_t width, bool accumulate, float* y) {
  constexpr std::size_t kVectors = kAddColumns / V::kLanes;
  const std::size_t stride = bytes_of<kType>(d);
  typename V::I sums[kTokens][kVectors];
  EDGE_UNROLL
  for (std::size_t t = 0; t < kTokens; ++t) {
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) sums[t][v] = V::as_ints(V::broadcast(weights.start[token + t]));
  }
  alignas(64) std::byte padded[2][kAddColumns] = {};
  for (std::size_t row = 0; row < rows; row += 2) {
    const std::byte* first = data + row * stride;
    const std::byte* second = row + 1 < rows ? first + stride : first;
    if (width < kAddColumns) {
      std::memcpy(padded[0], first, bytes_of<kType>(width));
      std::memcpy(padded[1], second, bytes_of<kType>(width));
      first = padded[0];
      second = padded[1];
    }
    const auto pair = V::template pair<kType>(first, second);
    EDGE_UNROLL
    for (std::size_t t = 0; t < kTokens; ++t) V::accumulate(pair, weights.pairs[row / 2] + token + t, sums[t]);
  }
  typename V::F values[kTokens][kVectors];
  EDGE_UNROLL
  for (std::size_t t = 0; t < kTokens; ++t) {
    V::template in_order<kType>(sums[t], values[t]);
    EDGE_UNROLL
    for (std::size_t v = 0; v < kVectors; ++v) {
      values[t][v] = V::mul(values[t][v], V::broadcast(weights.scale[token + t]));
    }
  }
  store_tile<V>(values, d, width, accumulate, y);
}

template <class V, DType kType>
void add_quantised(const Rows& rows, const float* h, std::size_t tokens, std::size_t d, bool accumulate, float* y) {
  if (tokens == 1 && !accumulate) {
    for (std::size_t begin = 0; begin < d; begin += kSegment) {
      const std::size_t end = d - begin < kSegment ? d : begin + kSegment;
      if constexpr (requires { V::kAddsQuads; }) {
        V::template stream_quads<kType>(rows, h, d, begin, end, y);
      } else {
        stream_quantised<V, kType>(rows, h, d, begin, end, y);
      }
    }
    return;
  }
  Weights<kMaxTokens> weights;
  for (std::size_t column = 0; column < d; column += kAddColumns) {
    if (kType == DType::kI4 || column == 0) {
      for (std::size_t token = 0; token < tokens; token += V::kLanes) {
        round_weights<V, kType>(rows.count, token,
                                weights_of_tokens<V, kType>(rows, h, tokens, token, d, column / kI4Group), weights);
      }
    }
    const std::size_t width = d - column < kAddColumns ? d - column : kAddColumns;
    const auto take = [&]<std::size_t kTokens>(std::size_t token) {
      add_quantised_tile<V, kType, kTokens>(rows.data + bytes_of<kType>(column), rows.count, weights, token, d, width,
                                            accumulate, y + token * d + column);
    };
    std::size_t token = 0;
    for (; token + V::kAddTokens <= tokens; token += V::kAddTokens) take.template operator()<V::kAddTokens>(token);
    for (; token < tokens; ++token) take.template operator()<1>(token);
  }
}

}  // namespace edge::kernels
