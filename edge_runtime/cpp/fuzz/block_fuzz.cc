// The bytes of a block: scales are judged as the format says, elements mean what it says, the kernel adds what they
// say.
//
//   byte 0     dtype; byte 1: columns; byte 2: rows a matrix
//   then       the scales of one layer, then its elements; zeros where the input ends
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "edge_runtime/bank_level.h"
#include "edge_runtime/memory_ffn.h"
#include "fuzz.h"

namespace edge::fuzz {
namespace {

constexpr std::size_t kHeader = 3;
// Of a sum, beside the magnitudes of its terms: memory_ffn.h.
constexpr double kSumError = 1e-6;
// A few times the smallest float: what results below the normal range may be off by.
constexpr double kUnderflow = 1e-43;

struct Block {
  BankLevelSpec spec;
  std::vector<std::byte> bytes;

  const std::byte* scales(std::size_t row) const {
    return bytes.data() + row * row_scale_bytes(spec.dtype, spec.d_model);
  }
  const std::byte* elements(std::size_t row) const {
    return bytes.data() + spec.layer_offset(0) + row * row_bytes(spec.dtype, spec.d_model);
  }
  std::size_t matrix_rows() const { return std::size_t{3} * spec.rows_per_block; }
};

Block block_of(Input input) {
  const auto dtype = static_cast<DType>(input[0] % 5);
  const std::uint32_t columns = dtype == DType::kI4 ? 32U * (1 + input[1] % 3U) : 1 + input[1] % 80U;
  auto spec = ffn_level_spec(1, 2, dtype, columns, 1 + input[2] % 3U, {0}, 1);
  require(spec.has_value(), "small specs are allowed");
  Block block{*spec, std::vector<std::byte>(spec->stride())};
  const Input rest = input.subspan(kHeader);
  const std::size_t scales = std::min<std::size_t>(rest.size(), spec->layer_scale_bytes());
  const std::size_t elements = std::min<std::size_t>(rest.size() - scales, spec->layer_bytes());
  std::memcpy(block.bytes.data(), rest.data(), scales);
  std::memcpy(block.bytes.data() + spec->layer_offset(0), rest.data() + scales, elements);
  return block;
}

template <typename T>
T load(const std::byte* from, std::size_t index) {
  T value;
  std::memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}

float scale_of(const Block& block, std::size_t row, std::size_t column) {
  const std::byte* const scales = block.scales(row);
  return block.spec.dtype == DType::kI8 ? load<float>(scales, 0)
                                        : f16_to_f32(load<std::uint16_t>(scales, column / kI4Group));
}

bool scales_are_finite_and_not_negative(const Block& block) {
  if (block.spec.layer_scale_bytes() == 0) {
    return true;
  }
  for (std::size_t row = 0; row < block.matrix_rows(); ++row) {
    for (std::size_t column = 0; column < block.spec.d_model; column += kI4Group) {
      const float scale = scale_of(block, row, column);
      if (!std::isfinite(scale) || std::signbit(scale)) {
        return false;
      }
    }
  }
  return true;
}

// docs/bank-format.md's table, element by element.
float element_of(const Block& block, std::size_t row, std::size_t column) {
  const std::byte* const data = block.elements(row);
  switch (block.spec.dtype) {
    case DType::kF32:
      return load<float>(data, column);
    case DType::kF16:
      return f16_to_f32(load<std::uint16_t>(data, column));
    case DType::kBF16: {
      const std::uint32_t bits = std::uint32_t{load<std::uint16_t>(data, column)} << 16U;
      float value = 0;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
    }
    case DType::kI8:
      return scale_of(block, row, column) * static_cast<float>(load<std::int8_t>(data, column));
    case DType::kI4: {
      const auto byte = load<std::uint8_t>(data, column / kI4Group * 16 + column % 16);
      const int q = column % kI4Group < 16 ? byte & 15 : byte >> 4;
      return scale_of(block, row, column) * static_cast<float>(q - 8);
    }
  }
  return 0;
}

// What quantising the values again may move one of them by: half a step, and what the smallest scale cannot express.
double half_step(DType dtype, std::span<const float> values) {
  double largest = 0;
  for (const float value : values) {
    largest = std::max(largest, std::fabs(static_cast<double>(value)));
  }
  switch (dtype) {
    case DType::kI8:
      return largest / 127 * 0.501 + 0x1p-142;
    case DType::kI4:
      return largest / 7 * 0.51 + 0x1p-21;
    default:
      return 0;
  }
}

void require_survives(DType dtype, std::span<const float> values) {
  std::vector<std::byte> data(row_bytes(dtype, values.size()));
  std::vector<std::byte> scales(row_scale_bytes(dtype, values.size()));
  if (!quantize_row(dtype, values, data.data(), scales.data())) {
    return;
  }
  std::vector<float> again(values.size());
  dequantize_row(dtype, data.data(), scales.data(), again);
  const std::size_t group = dtype == DType::kI4 ? kI4Group : values.size();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double most = half_step(dtype, values.subspan(i / group * group, group));
    require(std::fabs(static_cast<double>(again[i]) - values[i]) <= most, "a value survives being quantised again");
  }
}

using Matrices = std::vector<std::vector<float>>;

void require_kernel(const Block& block, const Matrices& rows) {
  const std::size_t d = block.spec.d_model;
  const std::size_t r = block.spec.rows_per_block;
  std::vector<float> x(d);
  for (std::size_t i = 0; i < d; ++i) {
    x[i] = static_cast<float>(i % 7) - 3;
  }
  const MemoryRows memory{block.spec.dtype, r, block.elements(0), block.scales(0)};
  std::vector<float> scratch(memory_ffn_scratch({&memory, 1}, 1, d));
  std::vector<float> y(d);
  memory_ffn({&memory, 1}, x.data(), 1, d, y.data(), scratch);

  // Each bound is memory_ffn.h's, carried through the formula: silu's slope is at most 1.1.
  const bool quantised = block.spec.layer_scale_bytes() > 0;
  const double x_rounding = quantised ? 3 * 0x1p-16 : 0;
  std::vector<double> h(r);
  std::vector<double> h_error(r);
  for (std::size_t row = 0; row < r; ++row) {
    std::array<double, 2> sums = {};
    std::array<double, 2> errors = {kUnderflow, kUnderflow};
    for (std::size_t matrix = 0; matrix < 2; ++matrix) {
      for (std::size_t i = 0; i < d; ++i) {
        const double w = rows[matrix * r + row][i];
        sums[matrix] += w * x[i];
        errors[matrix] += std::fabs(w) * (x_rounding + kSumError * std::fabs(static_cast<double>(x[i])));
      }
    }
    const double silu = sums[0] / (1 + std::exp(-sums[0]));
    h[row] = silu * sums[1];
    h_error[row] = (std::fabs(silu) + 1.1 * errors[0]) * errors[1] + 1.1 * errors[0] * std::fabs(sums[1]) +
                   kSumError * std::fabs(h[row]) + kUnderflow * (1 + std::fabs(sums[1]));
  }
  for (std::size_t i = 0; i < d; ++i) {
    double want = 0;
    double bound = 1e-40;
    double largest = 0;  // of h times W3's scale
    double counts = 0;   // sum |q|
    for (std::size_t row = 0; row < r; ++row) {
      const double w = rows[2 * r + row][i];
      want += h[row] * w;
      bound += (h_error[row] + kSumError * std::fabs(h[row])) * std::fabs(w);
      const double scale = quantised ? scale_of(block, 2 * r + row, i) : 0;
      if (scale > 0) {
        largest = std::max(largest, (std::fabs(h[row]) + h_error[row]) * scale);
        counts += std::fabs(w) / scale;
      }
    }
    bound += largest * (largest < 0x1p-99 ? 1 : 0x1p-16) * counts;  // so little may count as zero
    require(std::fabs(y[i] - want) <= bound, "the kernel adds W3^T (silu(W1 x) * (W2 x))");
  }
}

}  // namespace
}  // namespace edge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace edge::fuzz;
  if (size < kHeader) {
    return 0;
  }
  const Block block = block_of({data, size});
  const bool valid = edge::scales_are_valid(block.spec, block.bytes, 0);
  require(valid == scales_are_finite_and_not_negative(block), "scales are valid when finite and not negative");
  if (!valid) {
    return 0;  // the pager never hands such a block out
  }
  Matrices rows(block.matrix_rows(), std::vector<float>(block.spec.d_model));
  bool tame = true;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    edge::dequantize_row(block.spec.dtype, block.elements(row), block.scales(row), rows[row]);
    bool finite = true;
    for (std::size_t column = 0; column < rows[row].size(); ++column) {
      const float got = rows[row][column];
      const float want = element_of(block, row, column);
      require(got == want || (std::isnan(got) && std::isnan(want)), "an element means what the format says");
      finite = finite && std::isfinite(got);
      tame = tame && std::fabs(got) < 1e6F;  // false for NaN; above it the reference's own products overflow floats
    }
    if (finite) {
      require_survives(block.spec.dtype, rows[row]);
    }
  }
  if (tame) {
    require_kernel(block, rows);
  }
  return 0;
}
