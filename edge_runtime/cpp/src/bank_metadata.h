// What the reader and the writer of level files both check.
#pragma once

#include <cstdint>
#include <string>

#include "edge_runtime/bank_level.h"

namespace edge {

// Caps that keep every product below 2^63, so that the arithmetic of a checked spec needs no further checks.
inline constexpr std::uint64_t kMostColumns = 1U << 20U;
inline constexpr std::uint64_t kMostRowsPerBlock = 1U << 20U;
inline constexpr std::uint64_t kMostLayers = 1U << 12U;
inline constexpr std::uint64_t kLargestBlock = 1ULL << 40U;

// kUnsupported where this build does not know the kind of memory.
Status check_kind(const std::string& kind);

// Checks every field against docs/bank-format.md and derives `nodes`. After it the offsets of the spec cannot overflow.
// kBadFormat or kUnsupported; the message names no file.
Status check_spec(BankLevelSpec& spec);

}  // namespace edge
