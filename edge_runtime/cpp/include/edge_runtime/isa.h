// The instruction sets that kernels are written for. The best one of this machine is used unless a test chooses
// another.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "edge_runtime/result.h"

namespace edge {

enum class Isa : std::uint8_t {
  kScalar,       // plain C++: the definition of every result
  kAvx2,         // with FMA and F16C
  kAvx512,       // F, BW, DQ, VL and VNNI
  kAmx,          // and tiles of int8
  kNeon,         // the baseline of arm64
  kNeonDotprod,  // SDOT: Armv8.4, most cores since 2018
  kNeonI8mm,     // SMMLA: Armv8.6
};

std::string_view name(Isa isa);  // "scalar" "avx2" "avx512" "amx" "neon" "neon_dotprod" "neon_i8mm"
std::optional<Isa> parse_isa(std::string_view text);  // nullopt for anything else
const std::vector<Isa>& supported_isas();             // by this build and this machine, kScalar first, the best last
Isa active_isa();

// For tests and benchmarks. kUnsupported where this machine lacks it. REQUIRES that no kernel runs meanwhile, and that
// scratch sizes are asked for anew.
Status set_isa(Isa isa);

}  // namespace edge
