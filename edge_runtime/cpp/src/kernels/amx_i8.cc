// Products of memory's i8 rows: with several tokens in AMX tiles, 16 rows as they lie, 64 columns at a time; with few
// in vectors. Either way a row's products with the high bytes of a token's activations, and with the low ones, are
// summed exactly for a whole segment, so that a token's results are the same in both, bit by bit. Without tiles AVX-512
// is faster when it adds up other parts.
//
// Tried and not kept: `add` in tiles is a quarter faster, which is 1% of a prefill; i4 rows gain little, as unpacking
// them and a scale for each 32 columns of a row and token is what takes the time.
#include "kernels/amx.h"
#include "kernels/avx512.h"
#include "kernels/avx512_tokens.h"

namespace edge::kernels {
namespace {

constexpr std::size_t kFewestInTiles = 4;
constexpr std::size_t kWords = kTileBytes / kTileWord;
constexpr std::size_t kJoined = kTileRows / 2;  // tokens whose both bytes lie in one tile

constexpr std::size_t least(std::size_t a, std::size_t b) { return a < b ? a : b; }
// A word of all tokens, in bytes.
constexpr std::size_t word_bytes(std::size_t tokens) { return 2 * kTileWord * tokens; }

// A token at a time, in vectors: what waits for memory gains nothing by tiles, but loses. Weights are taken with an
// offset, as avx512.cc says.
//
// A prepared token: [scale, padded] [for each segment, what the offset adds: to the sum with the high bytes four times,
// to that with the low ones four times, padded] [high, low of 64 columns] ...
struct Few {
  static constexpr DType kType = DType::kI8;
  static constexpr bool kAddsUp = true;
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 1;

  static std::size_t planes(std::size_t d) { return kTileBytes * (1 + (d + kSegment - 1) / kSegment); }
  static std::size_t prepared_bytes(std::size_t d) {
    return planes(d) + (d + kTileBytes - 1) / kTileBytes * 2 * kTileBytes;
  }

  static void prepare(const float* x, std::size_t d, std::byte* out) {
    const __m512 inverse = scale_of(x, d, out);
    std::byte* to = out + planes(d);
    for (std::size_t begin = 0; begin < d; begin += kSegment) {
      __m512i high = _mm512_setzero_si512();
      __m512i low = _mm512_setzero_si512();
      for (std::size_t i = begin; i < least(d, begin + kSegment); i += kTileBytes, to += 2 * kTileBytes) {
        split_line(x, i, d, inverse, to, to + kTileBytes);
        high = _mm512_dpbusd_epi32(high, offset(), load(to));
        low = _mm512_dpbusd_epi32(low, offset(), load(to + kTileBytes));
      }
      const __m128i of_high = _mm_set1_epi32(-_mm512_reduce_add_epi32(high));
      const __m128i of_low = _mm_set1_epi32(-_mm512_reduce_add_epi32(low));
      std::byte* const of_segment = out + kTileBytes * (1 + begin / kSegment);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(of_segment), _mm256_set_m128i(of_low, of_high));
    }
  }

  template <std::size_t kR, std::size_t kT>
  static void totals(const std::byte* rows, const std::byte* token, std::size_t /*stride*/, std::size_t d,
                     float (&out)[kT][kR]) {
    static_assert(kT == 1);
    const std::byte* x = token + planes(d);
    __m128 total = _mm_setzero_ps();
    for (std::size_t begin = 0; begin < d; begin += kSegment) {
      __m512i high[kR];
      __m512i low[kR];
      EDGE_UNROLL
      for (std::size_t r = 0; r < kR; ++r) high[r] = low[r] = _mm512_setzero_si512();
      for (std::size_t i = begin; i < least(d, begin + kSegment); i += kTileBytes, x += 2 * kTileBytes) {
        const __mmask64 there = d - i < kTileBytes ? (1ULL << (d - i)) - 1 : ~0ULL;
        EDGE_UNROLL
        for (std::size_t r = 0; r < kR; ++r) {
          const __m512i w = _mm512_xor_si512(_mm512_maskz_loadu_epi8(there, rows + r * d + i), offset());
          high[r] = _mm512_dpbusd_epi32(high[r], w, load(x));
          low[r] = _mm512_dpbusd_epi32(low[r], w, load(x + kTileBytes));
        }
      }
      const auto* const of_segment = reinterpret_cast<const __m128i*>(token + kTileBytes * (1 + begin / kSegment));
      total = _mm_add_ps(total, join(_mm_add_epi32(totals_of_lanes(high), _mm_loadu_si128(of_segment)),
                                     _mm_add_epi32(totals_of_lanes(low), _mm_loadu_si128(of_segment + 1))));
    }
    _mm_mask_storeu_ps(out[0], (1U << kR) - 1, total);
  }

 private:
  static __m512i offset() { return _mm512_set1_epi8(static_cast<char>(128)); }

  // What the lanes of each row's vector add up to; of one row, the first of four.
  template <std::size_t kR>
  static __m128i totals_of_lanes(const __m512i (&rows)[kR]) {
    if constexpr (kR == 1) {
      return _mm_cvtsi32_si128(_mm512_reduce_add_epi32(rows[0]));
    } else {
      const __m512i parts = lane_sums(rows);
      const __m256i halves = _mm256_add_epi32(_mm512_castsi512_si256(parts), _mm512_extracti64x4_epi64(parts, 1));
      return _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    }
  }

  static __m128 join(__m128i high, __m128i low) {
    return _mm_fmadd_ps(_mm_cvtepi32_ps(high), _mm_set1_ps(256), _mm_cvtepi32_ps(low));
  }
};

// Tokens that are prepared together: [their scales, padded], then for each 64 columns a tile of 16 words: for each word
// [its high bytes of every token] [its low bytes of every token].
void prepare_tiles(const float* x, std::size_t tokens, std::size_t d, std::byte* out) {
  const std::size_t word = word_bytes(tokens);
  const __m512i words = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                           _mm512_set1_epi32(static_cast<int>(word)));
  for (std::size_t t = 0; t < tokens; ++t) {
    const float* const token = x + t * d;
    const __m512 inverse = scale_of(token, d, out + t * sizeof(float));
    std::byte* to = out + kTileBytes + t * kTileWord;
    for (std::size_t i = 0; i < d; i += kTileBytes, to += kWords * word) {
      alignas(64) std::byte high[kTileBytes];
      alignas(64) std::byte low[kTileBytes];
      split_line(token, i, d, inverse, high, low);
      _mm512_i32scatter_epi32(to, words, load(high), 1);
      _mm512_i32scatter_epi32(to + word / 2, words, load(low), 1);
    }
  }
}

// Tiles 0 and 1: sums, of high and of low bytes, or 0 alone of both; 2: rows; 3 and 4: tokens.
TileShapes shapes_of(std::size_t rows, std::size_t tokens) {
  TileShapes shapes;
  const auto of_tokens = static_cast<std::uint16_t>(tokens <= kJoined ? word_bytes(tokens) : kTileWord * tokens);
  for (const std::size_t tile : {0, 1, 2}) shapes.rows[tile] = static_cast<std::uint8_t>(rows);
  for (const std::size_t tile : {3, 4}) shapes.rows[tile] = kWords;
  for (const std::size_t tile : {0, 1, 3, 4}) shapes.row_bytes[tile] = of_tokens;
  shapes.row_bytes[2] = kTileBytes;
  return shapes;
}

// Sums of 16 rows: for each [with the high bytes of every token] [with the low ones].
struct alignas(64) TileSums {
  std::int32_t values[kTileRows * 2 * kTileRows];
};

// The tile of rows at `rows` times the words at `x`, added to the sums.
EDGE_INLINE void multiply_tile(const std::byte* rows, std::size_t stride, const std::byte* x, std::size_t tokens) {
  _tile_loadd(2, rows, stride);
  _tile_loadd(3, x, word_bytes(tokens));
  _tile_dpbssd(0, 2, 3);
  if (tokens <= kJoined) return;
  _tile_loadd(4, x + word_bytes(tokens) / 2, word_bytes(tokens));
  _tile_dpbssd(1, 2, 4);
}
EDGE_INLINE void begin_sums() {
  before_tiles();
  _tile_zero(0);
  _tile_zero(1);
}
EDGE_INLINE void end_sums(std::size_t tokens, TileSums& sums) {
  _tile_stored(0, sums.values, word_bytes(tokens));
  if (tokens > kJoined) _tile_stored(1, sums.values + tokens, word_bytes(tokens));
}

std::size_t prepared_bytes(std::size_t d) { return Few::prepared_bytes(d); }

void prepare(const float* x, std::size_t tokens, std::size_t d, std::byte* out) {
  if (tokens >= kFewestInTiles) return prepare_tiles(x, tokens, d, out);
  for (std::size_t t = 0; t < tokens; ++t) Few::prepare(x + t * d, d, out + t * Few::prepared_bytes(d));
}

// 256 * high + low.
__m512 join(const std::int32_t* row, std::size_t tokens, __mmask16 of_tokens) {
  const __m512i high = _mm512_maskz_loadu_epi32(of_tokens, row);
  const __m512i low = _mm512_maskz_loadu_epi32(of_tokens, row + tokens);
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(256), _mm512_cvtepi32_ps(low));
}

void dot(const Rows& rows, const Tokens& tokens, std::size_t d, float* out) {
  const std::size_t n = tokens.count;
  if (n < kFewestInTiles) return dot<Avx512, Few>(rows, tokens, d, out);
  const std::size_t height = least(kTileRows, rows.count);
  const TileShapes shapes = shapes_of(height, n);
  _tile_loadconfig(&shapes);
  const auto of_tokens = static_cast<__mmask16>((1U << n) - 1);
  const __m512 token_scales = _mm512_maskz_loadu_ps(of_tokens, tokens.data);
  const std::byte* const x = tokens.data + kTileBytes;
  Following following = following_of<DType::kI8>(rows, 0, d);
  TileSums sums;
  alignas(64) std::byte tail[kTileRows * kTileBytes] = {};  // a last line that is not whole, and zeros
  for (std::size_t row = 0; row < rows.count; row += height) {
    const std::size_t first = least(row, rows.count - height);  // the last tile overlaps the one before
    const std::byte* const data = rows.data + first * d;
    for (std::size_t r = 0; d % kTileBytes != 0 && r < height; ++r) {
      std::memcpy(tail + r * kTileBytes, data + r * d + d / kTileBytes * kTileBytes, d % kTileBytes);
    }
    __m512 totals[kTileRows];
    for (__m512& total : totals) total = _mm512_setzero_ps();
    for (std::size_t begin = 0; begin < d; begin += kSegment) {
      begin_sums();
      for (std::size_t i = begin; i < least(d, begin + kSegment); i += kTileBytes) {
        ask(following, height * kTileBytes);
        const bool whole = i + kTileBytes <= d;
        multiply_tile(whole ? data + i : tail, whole ? d : kTileBytes, x + i / kTileWord * word_bytes(n), n);
      }
      end_sums(n, sums);
      for (std::size_t r = 0; r < height; ++r) {
        totals[r] = _mm512_add_ps(totals[r], join(sums.values + r * 2 * n, n, of_tokens));
      }
    }
    for (std::size_t r = 0; r < height; ++r) {
      // The row's scale first, as finish_dot has it.
      const __m512 scale = _mm512_set1_ps(load_float(rows.scales + (first + r) * sizeof(float)));
      const __m512 total = _mm512_mul_ps(_mm512_mul_ps(totals[r], scale), token_scales);
      _mm512_mask_storeu_ps(out + (first + r) * n, of_tokens, total);
    }
  }
  // Idle tiles cost the system at every switch of threads.
  _tile_release();
}

void add(const Rows& rows, const float* h, std::size_t tokens, std::size_t d, bool accumulate, float* y) {
  kAvx512Kernels[DType::kI8].add(rows, h, tokens, d, accumulate, y);
}

}  // namespace

constinit const DTypeKernels kAmxI8 = {prepared_bytes, prepare, dot, add};

}  // namespace edge::kernels
