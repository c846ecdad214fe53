// What the instruction sets share, over a vector type V: loading rows, gates, the sum of partial results.
//
// V gives: F, a vector of kLanes floats, and arithmetic on it (fma is a * b + c; min and max give NaN where the
// second operand is NaN; largest is that of the lanes; sum adds the lanes, sum4 those of four vectors, each in the same
// order as sum does); f16, bf16: kLanes elements as floats; store_f16; masked, where there is such an instruction: the
// first `count` < kLanes of them, zeros behind them. V must be a type of the file that includes this: its instances are
// compiled with that file's flags and must not be shared with another file's.
#pragma once

#include <cstring>

#include "kernels/kernels.h"

#if defined(__clang__)
#define EDGE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define EDGE_UNROLL _Pragma("GCC unroll 16")
#endif

// Of functions that take sums by reference: a call would put them into memory for the whole of the caller.
#define EDGE_INLINE __attribute__((always_inline)) inline

namespace edge::kernels {

// kLanes columns of a float row.
template <class V, DType kType>
typename V::F load_columns(const std::byte* row, std::size_t column) {
  if constexpr (kType == DType::kF32) {
    return V::load(reinterpret_cast<const float*>(row) + column);
  } else if constexpr (kType == DType::kF16) {
    return V::f16(row + column * 2);
  } else {
    static_assert(kType == DType::kBF16);
    return V::bf16(row + column * 2);
  }
}

template <DType kType>
constexpr std::size_t bytes_of(std::size_t columns) {
  constexpr std::size_t kHalfBytes[] = {8, 4, 4, 2, 1};
  return columns * kHalfBytes[static_cast<std::size_t>(kType)] / 2;
}

template <DType kType>
constexpr std::size_t scale_bytes_of(std::size_t columns) {
  return kType == DType::kI8 ? sizeof(float) : kType == DType::kI4 ? columns / kI4Group * 2 : 0;
}

// The last count < kLanes columns, zeros behind them: nothing is read beyond the row.
template <class V, DType kType>
typename V::F load_tail(const std::byte* row, std::size_t column, std::size_t count) {
  const std::byte* const from = row + bytes_of<kType>(column);
  if constexpr (requires { V::template masked<kType>(from, count); }) {
    return V::template masked<kType>(from, count);
  } else {
    alignas(64) std::byte padded[V::kLanes * 4] = {};
    std::memcpy(padded, from, bytes_of<kType>(count));
    return load_columns<V, kType>(padded, 0);
  }
}

template <class V>
void store_tail(float* to, typename V::F value, std::size_t count) {
  alignas(64) float padded[V::kLanes];
  V::store(padded, value);
  std::memcpy(to, padded, count * sizeof(float));
}

// e^u = 2^n * e^r, |r| <= ln 2 / 2: the series to the seventh power is good to half a unit in the last place.
template <class V>
typename V::F exp_of(typename V::F u) {
  using F = typename V::F;
  constexpr float kInverseFactorials[] = {1.0F / 5040, 1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F};
  const F n = V::round(V::mul(u, V::broadcast(1.44269504F)));
  // ln 2 in two parts, so that n * ln 2 is subtracted without rounding.
  const F r = V::fma(n, V::broadcast(-1.42860677e-6F), V::fma(n, V::broadcast(-0.693145752F), u));
  F series = V::broadcast(kInverseFactorials[0]);
  EDGE_UNROLL
  for (std::size_t k = 1; k < 8; ++k) series = V::fma(series, r, V::broadcast(kInverseFactorials[k]));
  return V::scale_by_power_of_two(series, n);
}

// v / (1 + e^-u)
template <class V>
EDGE_INLINE typename V::F times_sigmoid(typename V::F v, typename V::F u) {
  // Beyond these e^-u is infinite or vanishes beside 1. NaN passes through both.
  const auto power = V::max(V::broadcast(-104.0F), V::min(V::broadcast(104.0F), V::sub(V::zero(), u)));
  return V::div(v, V::add(V::broadcast(1.0F), exp_of<V>(power)));
}

struct Silu {
  template <class V>
  EDGE_INLINE static typename V::F of(typename V::F v) {
    return times_sigmoid<V>(v, v);
  }
};

struct Gelu {
  template <class V>
  EDGE_INLINE static typename V::F of(typename V::F v) {
    const auto slope = V::fma(V::mul(v, v), V::broadcast(kGeluCubic), V::broadcast(kGeluLinear));
    return times_sigmoid<V>(v, V::mul(v, slope));
  }
};

template <class V>
void to_f16(const float* v, std::size_t n, std::byte* out) {
  std::size_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) V::store_f16(out + i * 2, V::load(v + i));
  if (i < n) {
    alignas(64) std::byte padded[V::kLanes * 2];
    V::store_f16(padded, load_tail<V, DType::kF32>(reinterpret_cast<const std::byte*>(v), i, n - i));
    std::memcpy(out + i * 2, padded, (n - i) * 2);
  }
}

template <class V, class Activation>
void gated(float* gate, const float* up, std::size_t n) {
  std::size_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) {
    V::store(gate + i, V::mul(Activation::template of<V>(V::load(gate + i)), V::load(up + i)));
  }
  if (i < n) {
    const auto tail = [&](const float* from) {
      return load_tail<V, DType::kF32>(reinterpret_cast<const std::byte*>(from), i, n - i);
    };
    store_tail<V>(gate + i, V::mul(Activation::template of<V>(tail(gate)), tail(up)), n - i);
  }
}

template <class V>
void sum_parts(const float* parts, std::size_t count, std::size_t n, float* y) {
  std::size_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) {
    typename V::F sum = V::load(parts + i);
    for (std::size_t part = 1; part < count; ++part) sum = V::add(sum, V::load(parts + part * n + i));
    V::store(y + i, sum);
  }
  for (; i < n; ++i) {
    y[i] = parts[i];
    for (std::size_t part = 1; part < count; ++part) y[i] += parts[part * n + i];
  }
}

}  // namespace edge::kernels
