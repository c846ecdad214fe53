// AMX: a tile product multiplies 16 tokens with a group of a block, whose words lie as a tile of 8 x 64 bytes does.
// What is left over of 16 tokens, a decoded token above all, is AVX-512's.
#include <algorithm>
#include <array>

#include "kernels/amx.h"
#include "kernels/packed.h"
#include "kernels/vector_tiles.h"

namespace edge::kernels {
namespace {

constexpr std::size_t kTokens = kTileRows;
constexpr std::size_t kWords = kPackedColumns / kPackedWord;

// Sums, tokens and weights, each twice: a product does not wait until the one before it was taken out.
constexpr TileShapes kShapes = {.row_bytes = {64, 64, 32, 32, 64, 64}, .rows = {16, 16, 16, 16, kWords, kWords}};

struct alignas(kTileBytes) Sums {
  std::array<std::int32_t, kTokens * kPackedRows> values;
};
// Of some groups: tiles are loaded long after they were written here, which a load just behind a store would wait for.
constexpr std::size_t kChunk = 8;
constexpr std::size_t kGroupWords = kWords * kTileBytes;
struct alignas(kTileBytes) Words {
  std::array<std::byte, kChunk * kGroupWords> values;
};

// The words of `count` groups as signed bytes.
struct I8 {
  static constexpr DType kType = DType::kI8;
  static const std::byte* words(const std::byte* stored, std::size_t /*count*/, Words& /*room*/) { return stored; }
};
struct I4 {
  static constexpr DType kType = DType::kI4;
  static const std::byte* words(const std::byte* stored, std::size_t count, Words& room) {
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i offset = _mm512_set1_epi8(8);
    for (std::size_t g = 0; g < count; ++g) {
      std::byte* const to = room.values.data() + g * kGroupWords;
      EDGE_UNROLL
      for (std::size_t w = 0; w < kWords / 2; ++w, stored += kTileBytes) {
        const __m512i both = _mm512_loadu_si512(stored);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        _mm512_store_si512(to + w * kTileBytes, _mm512_sub_epi8(_mm512_and_si512(both, low), offset));
        _mm512_store_si512(to + (w + kWords / 2) * kTileBytes, _mm512_sub_epi8(high, offset));
      }
    }
    return room.values.data();
  }
};

// Of an even group and of an odd one: a tile's number is part of its instruction.
EDGE_INLINE void multiply_even(const PackedGroup* tokens, std::size_t groups, const std::byte* words, Sums& sums) {
  before_tiles();
  _tile_zero(0);
  _tile_loadd(2, tokens, groups * sizeof(PackedGroup));
  _tile_loadd(4, words, kTileBytes);
  _tile_dpbssd(0, 2, 4);
  _tile_stored(0, sums.values.data(), kPackedRows * sizeof(std::int32_t));
}
EDGE_INLINE void multiply_odd(const PackedGroup* tokens, std::size_t groups, const std::byte* words, Sums& sums) {
  before_tiles();
  _tile_zero(1);
  _tile_loadd(3, tokens, groups * sizeof(PackedGroup));
  _tile_loadd(5, words, kTileBytes);
  _tile_dpbssd(1, 3, 5);
  _tile_stored(1, sums.values.data(), kPackedRows * sizeof(std::int32_t));
}

template <class Form>
EDGE_INLINE void add_group(const Sums& of, const std::byte* scales, const PackedGroup* tokens, std::size_t groups,
                           __m512 (&sums)[kTokens]) {
  // NOLINTNEXTLINE(misc-const-correctness): assigned where the rows are i4
  __m512 scale = _mm512_setzero_ps();
  if constexpr (Form::kType == DType::kI4) {
    scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
  }
  EDGE_UNROLL
  for (std::size_t t = 0; t < kTokens; ++t) {
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(of.values.data() + t * kPackedRows));
    const __m512 by = _mm512_set1_ps(tokens[t * groups].scale);
    sums[t] = _mm512_fmadd_ps(sum, Form::kType == DType::kI4 ? _mm512_mul_ps(scale, by) : by, sums[t]);
  }
}

template <class Form>
void multiply_block(const std::byte* data, const std::byte* scales, const PackedGroup* tokens, std::size_t groups,
                    float* y, std::size_t stride) {
  constexpr std::size_t kGroupBytes = packed_block_bytes(Form::kType, kPackedColumns);
  constexpr std::size_t kScaleBytes = Form::kType == DType::kI4 ? packed_scale_bytes(Form::kType, kPackedColumns) : 0;
  Sums even;
  Sums odd;
  Words room;
  __m512 sums[kTokens];
  EDGE_UNROLL
  for (std::size_t t = 0; t < kTokens; ++t) sums[t] = _mm512_setzero_ps();
  for (std::size_t first = 0; first < groups; first += kChunk) {
    const std::size_t count = std::min(kChunk, groups - first);
    const std::byte* const words = Form::words(data + first * kGroupBytes, count, room);
    const std::byte* const by = scales + first * kScaleBytes;
    const PackedGroup* const of = tokens + first;
    std::size_t g = 0;
    for (; g + 2 <= count; g += 2) {
      multiply_even(of + g, groups, words + g * kGroupWords, even);
      multiply_odd(of + g + 1, groups, words + (g + 1) * kGroupWords, odd);
      add_group<Form>(even, by + g * kScaleBytes, of + g, groups, sums);
      add_group<Form>(odd, by + (g + 1) * kScaleBytes, of + g + 1, groups, sums);
    }
    if (g < count) {
      multiply_even(of + g, groups, words + g * kGroupWords, even);
      add_group<Form>(even, by + g * kScaleBytes, of + g, groups, sums);
    }
  }
  EDGE_UNROLL
  for (std::size_t t = 0; t < kTokens; ++t) {
    if constexpr (Form::kType == DType::kI8) {
      sums[t] = _mm512_mul_ps(sums[t], _mm512_loadu_ps(reinterpret_cast<const float*>(scales)));
    }
    _mm512_storeu_ps(y + t * stride, sums[t]);
  }
}

template <class Form>
void multiply(const PackedBlocks& blocks, const PackedTokens& tokens, float* y, std::size_t stride) {
  const std::size_t columns = tokens.groups * kPackedColumns;
  const std::size_t block_bytes = packed_block_bytes(Form::kType, columns);
  const std::size_t scale_bytes = packed_scale_bytes(Form::kType, columns);
  std::size_t t = 0;
  if (tokens.count >= kTokens) {
    _tile_loadconfig(&kShapes);
    for (; t + kTokens <= tokens.count; t += kTokens) {
      for (std::size_t b = 0; b < blocks.count; ++b) {
        multiply_block<Form>(blocks.data + b * block_bytes, blocks.scales + b * scale_bytes,
                             tokens.data + t * tokens.groups, tokens.groups, y + t * stride + b * kPackedRows, stride);
      }
    }
    // Idle tiles cost the system at every switch of threads.
    _tile_release();
  }
  if (t < tokens.count) {
    const auto rest = Form::kType == DType::kI4 ? kAvx512PackedKernels.i4 : kAvx512PackedKernels.i8;
    rest(blocks, {tokens.data + t * tokens.groups, tokens.groups, tokens.count - t}, y + t * stride, stride);
  }
}

void quantise(const float* x, std::size_t d, PackedGroup* out) { kAvx512PackedKernels.quantise(x, d, out); }

}  // namespace

constinit const PackedKernels kAmxPackedKernels = {quantise, multiply<I8>, multiply<I4>};

}  // namespace edge::kernels
