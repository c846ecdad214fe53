// The kernels of one instruction set, as a table: what a decoder's matrices need, whatever their dtype.
//
// Two shapes of product cover a SwiGLU, and every other matrix of a decoder is the first:
//   dot   out = W x   rows of W along the input:   W1, W2, projections, the head
//   add   y += W^T h  rows of W along the output:  W3
//
// Quantised rows (i8, i4) meet activations that are quantised too, to 16 bits with one scale a token:
//   q[i] = round(x[i] * kActivationLimit / max|x|)
// The products are summed in exact integer arithmetic, i8 over a whole segment, i4 over a group. So the step is 2^-16
// of the token's largest value, which is far below what rounding the weights to 8 or 4 bits has cost, and integer
// instructions take both bytes of q at once or one after the other. A token that is not finite gives NaN.
// In `add` the weight of a quantised row is h times its scale (i4: its group's), rounded to 16 bits beside the largest
// one of the call that meets the same columns.
//
// Every result is a function of its own row or column and token alone: it does not depend on how many tokens or rows a
// call has. Callers rely on it for results that are the same whatever the number of threads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "edge_runtime/dtype.h"
#include "edge_runtime/isa.h"

namespace edge::kernels {

// The largest |q|: its high byte, rounded to nearest, still fits eight bits with a sign.
inline constexpr int kActivationLimit = 127 * 256;
// Below this a token counts as zero, so that kActivationLimit / max|x| is finite.
inline constexpr float kSmallestActivation = 0x1p-100F;
// Columns whose products are summed in 32 bits before they go to f32: no sum of a segment overflows a lane.
inline constexpr std::size_t kSegment = 2048;

// The most that one `add` takes.
inline constexpr std::size_t kMaxRows = 64;
inline constexpr std::size_t kMaxTokens = 16;

// Keys of a cache that lie side by side: a group is [d, kKeysTogether].
inline constexpr std::size_t kKeysTogether = 16;

// gelu(x) = x / (1 + e^-u), u = x (kGeluLinear + kGeluCubic x^2): x/2 (1 + tanh(u / 2)) written otherwise.
inline constexpr float kGeluLinear = 1.59576912F;  // 2 sqrt(2 / pi)
inline constexpr float kGeluCubic = kGeluLinear * 0.044715F;

// Rows of one matrix, one after another, as docs/bank-format.md lays them out.
struct Rows {
  const std::byte* data = nullptr;
  const std::byte* scales = nullptr;  // null for float dtypes
  std::size_t count = 0;
  // What will be read after these, of the same dtype and d, or null: asked for along the way, so that a new matrix does
  // not interrupt the stream.
  const Rows* next = nullptr;
};

// Tokens in the form that `dot` reads: f32 in place for float dtypes, else what one call of `prepare` wrote, all of it:
// some kernels mix them.
struct Tokens {
  const std::byte* data = nullptr;  // the first token; aligned to 64 bytes if prepared
  std::size_t stride = 0;           // bytes from token to token; prepared_bytes if prepared
  std::size_t count = 0;
};

struct DTypeKernels {
  // Bytes of a prepared token, a multiple of 64; null, with `prepare`, where dot reads f32 in place.
  std::size_t (*prepared_bytes)(std::size_t d) = nullptr;
  // Writes as many times prepared_bytes at most. REQUIRES tokens <= kMaxTokens.
  void (*prepare)(const float* x, std::size_t tokens, std::size_t d, std::byte* out) = nullptr;
  // out[row * tokens.count + token] = rows[row] . tokens[token]
  void (*dot)(const Rows& rows, const Tokens& tokens, std::size_t d, float* out) = nullptr;
  // y[token * d + i] = sum over rows of h[row * tokens + token] * rows[row][i], row by row from zero; with `accumulate`
  // that sum is added to y. REQUIRES rows.count <= kMaxRows, tokens <= kMaxTokens.
  void (*add)(const Rows& rows, const float* h, std::size_t tokens, std::size_t d, bool accumulate, float* y) = nullptr;
};

// Attention over at most kMaxRows positions of a cache in f32 or f16, for at most kMaxTokens queries. In `scores` and
// `weights` a query has kMaxRows values, one a position.
struct AttentionKernels {
  // scores[q][k] = query q . key k for all keys of the groups. queries: [d, count].
  void (*score)(const std::byte* keys, std::size_t groups, const float* queries, std::size_t count, std::size_t d,
                float* scores) = nullptr;
  // sums[q][i] = sums[q][i] * shrink[q] + the sum over rows of weights[q][row] * values[row][i], kKeysTogether rows
  // at a time.
  void (*weigh)(const std::byte* values, std::size_t rows, const float* weights, const float* shrink, std::size_t count,
                std::size_t d, float* sums) = nullptr;
};

struct Kernels {
  std::array<DTypeKernels, 5> of;             // by DType
  std::array<AttentionKernels, 2> attention;  // by DType: kF32, kF16
  // gate[i] = silu(gate[i]) * up[i]
  void (*swiglu)(float* gate, const float* up, std::size_t n) = nullptr;
  // gate[i] = gelu(gate[i]) * up[i], in the form with tanh
  void (*geglu)(float* gate, const float* up, std::size_t n) = nullptr;
  // For kMaxRows scores and m, the largest of them and `before`, which is returned: scores[i] = e^(scores[i] - m), at
  // most two units in the last place off, at most 1e-38 for powers below -87, 0 for those below -104; total: their sum.
  float (*soften)(float* scores, float before, float* total) = nullptr;
  // As f32_to_f16 rounds; a NaN stays one.
  void (*to_f16)(const float* v, std::size_t n, std::byte* out) = nullptr;
  // y[i] = parts[i] + parts[n + i] + ..., in this order. REQUIRES count >= 1.
  void (*sum)(const float* parts, std::size_t count, std::size_t n, float* y) = nullptr;
  // XXH3 of both, one after the other: the same in all tables.
  std::uint64_t (*checksum)(const std::byte* scales, std::size_t scale_bytes, const std::byte* data,
                            std::size_t bytes) = nullptr;

  const DTypeKernels& operator[](DType dtype) const { return of[static_cast<std::size_t>(dtype)]; }
};

// Null where this build or this machine lacks the instruction set.
const Kernels* kernels_of(Isa isa);
const Kernels& active_kernels();

// One file each, compiled with its own flags. Such a file calls no template or inline function of the standard library:
// the linker might keep its copy, with its instructions, for the whole program.
extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const DTypeKernels kAmxI8;  // the rest of AMX's table is AVX-512's
extern const Kernels kNeonKernels;
extern const Kernels kNeonDotprodKernels;
extern const Kernels kNeonI8mmKernels;

}  // namespace edge::kernels
