// Products of rows with tokens over a vector type V: see vector_tiles.h for V, kernels.h for what `dot` means.
//
// A form gives: its kType; kRows x kTokens, the largest tile that its accumulators fit; and
// sums<rows, tokens>(rows, scales, tokens, token_stride, d, out), the products as vectors whose lanes are to be added;
// or, where it says kAddsUp, totals<rows, tokens>(rows, tokens, token_stride, d, out), the products but for scales.
// Functions that are no templates are static: each file that includes this needs its own copy, compiled with its flags.
#pragma once

#include "kernels/vector_tiles.h"

namespace edge::kernels {

static inline float load_float(const std::byte* from) {
  float value = 0;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline constexpr std::size_t kLine = 64;  // of caches

// What is read after a call's rows, asked for at the pace of their reading, as more at once would wait for each other:
// into the second cache, as the nearest takes too few requests at a time. Not for scales, which memory_ffn asks for
// once a chunk: asking for a line again and again costs more.
struct Following {
  const std::byte* at;
  const std::byte* end;
  std::size_t pace;  // bytes for each byte that is read: all is asked for even where fewer rows come before it
};
// The share that belongs to the columns from `begin` to `end`.
template <DType kType>
Following following_of(const Rows& rows, std::size_t begin, std::size_t end) {
  if (rows.next == nullptr || rows.count == 0) return {nullptr, nullptr, 0};
  const std::size_t count = rows.next->count;
  const std::byte* const data = rows.next->data;
  return {data + count * bytes_of<kType>(begin), data + count * bytes_of<kType>(end),
          (count + rows.count - 1) / rows.count};
}
static inline void ask(Following& following, std::size_t bytes) {
  const std::byte* at = following.at;
  const auto left = static_cast<std::size_t>(following.end - at);
  const std::size_t some = bytes * following.pace < left ? bytes * following.pace : left;
  for (std::size_t i = 0; i < some; i += kLine) __builtin_prefetch(at + i, 0, 2);
  following.at = at + some;
}

// f32, f16 and bf16 rows with f32 tokens. Each sum is kept in V::kDotSums vectors, so that a single row does not wait
// for its own additions.
template <class V, DType kRowType>
struct Floats {
  using F = typename V::F;
  static constexpr DType kType = kRowType;
  static constexpr std::size_t kRows = V::kDotRows;
  static constexpr std::size_t kTokens = V::kDotTokens;
  static constexpr std::size_t kColumns = V::kLanes * V::kDotSums;

  template <std::size_t kR, std::size_t kT>
  static void sums(const std::byte* rows, const std::byte* /*scales*/, const std::byte* tokens,
                   std::size_t token_stride, std::size_t d, F (&out)[kR][kT]) {
    const std::size_t row_stride = bytes_of<kType>(d);
    F parts[V::kDotSums][kR][kT];
    EDGE_UNROLL
    for (std::size_t k = 0; k < V::kDotSums; ++k) {
      EDGE_UNROLL
      for (std::size_t r = 0; r < kR; ++r) {
        EDGE_UNROLL
        for (std::size_t t = 0; t < kT; ++t) parts[k][r][t] = V::zero();
      }
    }
    std::size_t i = 0;
    for (; i + kColumns <= d; i += kColumns) {
      step(rows + bytes_of<kType>(i), row_stride, tokens + i * sizeof(float), token_stride, parts);
    }
    if (i < d) {  // zeros add nothing
      alignas(64) std::byte w[kR][bytes_of<kType>(kColumns)] = {};
      alignas(64) std::byte x[kT][kColumns * sizeof(float)] = {};
      for (std::size_t r = 0; r < kR; ++r) {
        std::memcpy(w[r], rows + r * row_stride + bytes_of<kType>(i), bytes_of<kType>(d - i));
      }
      for (std::size_t t = 0; t < kT; ++t) {
        std::memcpy(x[t], tokens + t * token_stride + i * sizeof(float), (d - i) * sizeof(float));
      }
      step(w[0], sizeof w[0], x[0], sizeof x[0], parts);
    }
    EDGE_UNROLL
    for (std::size_t r = 0; r < kR; ++r) {
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) {
        out[r][t] = parts[0][r][t];
        EDGE_UNROLL
        for (std::size_t k = 1; k < V::kDotSums; ++k) out[r][t] = V::add(out[r][t], parts[k][r][t]);
      }
    }
  }

 private:
  template <std::size_t kR, std::size_t kT>
  static void step(const std::byte* rows, std::size_t row_stride, const std::byte* tokens, std::size_t token_stride,
                   F (&parts)[V::kDotSums][kR][kT]) {
    EDGE_UNROLL
    for (std::size_t k = 0; k < V::kDotSums; ++k) {
      F w[kR];
      EDGE_UNROLL
      for (std::size_t r = 0; r < kR; ++r) w[r] = load_columns<V, kType>(rows + r * row_stride, k * V::kLanes);
      EDGE_UNROLL
      for (std::size_t t = 0; t < kT; ++t) {
        const F x = load_columns<V, DType::kF32>(tokens + t * token_stride, k * V::kLanes);
        EDGE_UNROLL
        for (std::size_t r = 0; r < kR; ++r) parts[k][r][t] = V::fma(w[r], x, parts[k][r][t]);
      }
    }
  }
};

// What the lanes of sums add up to.
template <class V, std::size_t kRows, std::size_t kTokens>
EDGE_INLINE void add_lanes(const typename V::F (&sums)[kRows][kTokens], float (&totals)[kTokens][kRows]) {
  EDGE_UNROLL
  for (std::size_t t = 0; t < kTokens; ++t) {
    if constexpr (kRows == 4) {
      V::sum4(sums[0][t], sums[1][t], sums[2][t], sums[3][t], totals[t]);
    } else {
      EDGE_UNROLL
      for (std::size_t r = 0; r < kRows; ++r) totals[t][r] = V::sum(sums[r][t]);
    }
  }
}

// out[r * out_stride + t] out of the totals.
template <DType kType, std::size_t kRows, std::size_t kTokens>
EDGE_INLINE void finish_dot(float (&totals)[kTokens][kRows], const std::byte* scales, const std::byte* tokens,
                            std::size_t token_stride, float* out, std::size_t out_stride) {
  EDGE_UNROLL
  for (std::size_t t = 0; t < kTokens; ++t) {
    EDGE_UNROLL
    for (std::size_t r = 0; r < kRows; ++r) {
      // The row's scale first: the products of two small scales would lose their last bits.
      if constexpr (kType == DType::kI8) totals[t][r] *= load_float(scales + r * sizeof(float));
      if constexpr (kType == DType::kI8 || kType == DType::kI4) totals[t][r] *= load_float(tokens + t * token_stride);
      out[r * out_stride + t] = totals[t][r];
    }
  }
}

template <class V, class Form, std::size_t kRows, std::size_t kTokens>
EDGE_INLINE void totals_of(const std::byte* rows, const std::byte* scales, const std::byte* tokens,
                           std::size_t token_stride, std::size_t d, float (&totals)[kTokens][kRows]) {
  if constexpr (requires { Form::kAddsUp; }) {
    Form::template totals<kRows, kTokens>(rows, tokens, token_stride, d, totals);
  } else {
    typename V::F sums[kRows][kTokens];
    Form::template sums<kRows, kTokens>(rows, scales, tokens, token_stride, d, sums);
    add_lanes<V>(sums, totals);
  }
}

// kRows rows with one token, one after another: hardware prefetchers follow that one stream twice as fast as several
// interleaved ones. What comes next is asked for a row at a time.
template <class V, class Form, std::size_t kRows>
EDGE_INLINE void stream_totals(const std::byte* rows, const std::byte* scales, const Tokens& tokens, std::size_t d,
                               Following& following, float (&totals)[1][kRows]) {
  typename V::F sums[kRows][1];
  EDGE_UNROLL
  for (std::size_t r = 0; r < kRows; ++r) {
    ask(following, bytes_of<Form::kType>(d));
    typename V::F sum[1][1];
    Form::template sums<1, 1>(rows + r * bytes_of<Form::kType>(d), scales + r * scale_bytes_of<Form::kType>(d),
                              tokens.data, tokens.stride, d, sum);
    sums[r][0] = sum[0][0];
  }
  add_lanes<V>(sums, totals);
}

template <class V, class Form, std::size_t kRows>
void stream_dot(const Rows& rows, std::size_t row, const Tokens& tokens, std::size_t d, Following& following,
                float* out) {
  constexpr DType kType = Form::kType;
  const std::byte* const data = rows.data + row * bytes_of<kType>(d);
  const std::byte* const scales = rows.scales + row * scale_bytes_of<kType>(d);
  alignas(16) float totals[1][kRows];
  if constexpr (requires { Form::kAddsUp; }) {
    ask(following, kRows * bytes_of<kType>(d));
    totals_of<V, Form>(data, scales, tokens.data, tokens.stride, d, totals);
  } else {
    stream_totals<V, Form>(data, scales, tokens, d, following, totals);
  }
  finish_dot<kType>(totals, scales, tokens.data, tokens.stride, out + row, 1);
}

// Rows outside: the rows of a tile come from memory once, then from the nearest cache for the other tokens.
template <class V, class Form>
void dot(const Rows& rows, const Tokens& tokens, std::size_t d, float* out) {
  constexpr DType kType = Form::kType;
  constexpr std::size_t kStreamedRows = 4;  // whose lanes are added at once
  Following following = following_of<kType>(rows, 0, d);
  std::size_t row = 0;
  if (tokens.count == 1) {
    for (; row + kStreamedRows <= rows.count; row += kStreamedRows) {
      stream_dot<V, Form, kStreamedRows>(rows, row, tokens, d, following, out);
    }
    for (; row < rows.count; ++row) stream_dot<V, Form, 1>(rows, row, tokens, d, following, out);
    return;
  }
  const auto along_tokens = [&]<std::size_t kRows> {
    ask(following, kRows * bytes_of<kType>(d));
    const std::byte* const scales = rows.scales + row * scale_bytes_of<kType>(d);
    const auto take = [&]<std::size_t kTokens>(std::size_t token) {
      const std::byte* const x = tokens.data + token * tokens.stride;
      alignas(16) float totals[kTokens][kRows];
      totals_of<V, Form>(rows.data + row * bytes_of<kType>(d), scales, x, tokens.stride, d, totals);
      finish_dot<kType>(totals, scales, x, tokens.stride, out + row * tokens.count + token, tokens.count);
    };
    std::size_t token = 0;
    for (; token + Form::kTokens <= tokens.count; token += Form::kTokens)
      take.template operator()<Form::kTokens>(token);
    for (; token < tokens.count; ++token) take.template operator()<1>(token);
    row += kRows;
  };
  while (row + Form::kRows <= rows.count) along_tokens.template operator()<Form::kRows>();
  while (row < rows.count) along_tokens.template operator()<1>();
}

}  // namespace edge::kernels
