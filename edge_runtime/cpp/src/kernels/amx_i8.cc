// Products of memory's i8 rows with several tokens in AMX tiles: 16 rows as they lie, 64 columns at a time. A row's
// products with either byte of the activations are summed exactly, so the results are AVX-512's, bit by bit.
//
// Tried and not kept: `add` in tiles is a quarter faster, which is 1% of a prefill; i4 rows gain little, as unpacking
// them and a scale for each 32 columns of a row and token is what takes the time.
#include "kernels/amx.h"
#include "kernels/avx512.h"
#include "kernels/avx512_tokens.h"

namespace edge::kernels {
namespace {

// Fewer tokens wait for memory, whatever multiplies them.
constexpr std::size_t kFewestInTiles = 4;
constexpr std::size_t kWords = kTileBytes / kTileWord;
constexpr std::size_t kJoined = kTileRows / 2;  // tokens whose both bytes lie in one tile

constexpr std::size_t least(std::size_t a, std::size_t b) { return a < b ? a : b; }
// A word of all tokens, in bytes.
constexpr std::size_t word_bytes(std::size_t tokens) { return 2 * kTileWord * tokens; }

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
      for (std::size_t k = 0; k < kTileBytes; k += 16) {
        const __m512i q = i + k < d ? quantise(token + i + k, d - i - k, inverse) : _mm512_setzero_si512();
        split(q, high + k, low + k);
      }
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

const DTypeKernels& without_tiles() { return kAvx512Kernels[DType::kI8]; }

std::size_t prepared_bytes(std::size_t d) { return without_tiles().prepared_bytes(d); }

void prepare(const float* x, std::size_t tokens, std::size_t d, std::byte* out) {
  return tokens < kFewestInTiles ? without_tiles().prepare(x, tokens, d, out) : prepare_tiles(x, tokens, d, out);
}

// 256 * high + low out of exact sums, as AVX-512 has it.
__m512 join(const std::int32_t* row, std::size_t tokens, __mmask16 of_tokens) {
  const __m512i high = _mm512_maskz_loadu_epi32(of_tokens, row);
  const __m512i low = _mm512_maskz_loadu_epi32(of_tokens, row + tokens);
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(256), _mm512_cvtepi32_ps(low));
}

void dot(const Rows& rows, const Tokens& tokens, std::size_t d, float* out) {
  const std::size_t n = tokens.count;
  if (n < kFewestInTiles) return without_tiles().dot(rows, tokens, d, out);
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
    for (std::size_t r = 0; r < height; ++r) {
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
  without_tiles().add(rows, h, tokens, d, accumulate, y);
}

}  // namespace

constinit const DTypeKernels kAmxI8 = {prepared_bytes, prepare, dot, add};

}  // namespace edge::kernels
