// Which kernels this build has, which of them this machine can run, and which are in use.
#include <algorithm>
#include <array>
#include <atomic>
#include <string>

#include "kernels/cpu_features.h"
#include "kernels/kernels.h"
#include "kernels/packed.h"

namespace edge {
namespace {

constexpr std::array<std::string_view, 7> kNames = {"scalar", "avx2",         "avx512",   "amx",
                                                    "neon",   "neon_dotprod", "neon_i8mm"};

std::vector<Isa> detect() {
  std::vector<Isa> found = {Isa::kScalar};
  [[maybe_unused]] const kernels::CpuFeatures cpu = kernels::cpu_features();
#if defined(EDGE_KERNELS_X86)
  if (cpu.avx2) found.push_back(Isa::kAvx2);
  if (cpu.avx2 && cpu.avx512_vnni) found.push_back(Isa::kAvx512);
  if (cpu.avx2 && cpu.avx512_vnni && cpu.amx_int8) found.push_back(Isa::kAmx);
#elif defined(EDGE_KERNELS_ARM64)
  found.push_back(Isa::kNeon);
  if (cpu.dotprod) found.push_back(Isa::kNeonDotprod);
  if (cpu.dotprod && cpu.i8mm) found.push_back(Isa::kNeonI8mm);
#endif
  return found;
}

#if defined(EDGE_KERNELS_X86)
// Tiles multiply bytes; all else is AVX-512's.
const kernels::Kernels& with_tiles() {
  static const kernels::Kernels kernels = [] {
    kernels::Kernels some = kernels::kAvx512Kernels;
    some.of[static_cast<std::size_t>(DType::kI8)] = kernels::kAmxI8;
    return some;
  }();
  return kernels;
}
#endif

const kernels::Kernels* table(Isa isa) {
  switch (isa) {
#if defined(EDGE_KERNELS_X86)
    case Isa::kAvx2:
      return &kernels::kAvx2Kernels;
    case Isa::kAvx512:
      return &kernels::kAvx512Kernels;
    case Isa::kAmx:
      return &with_tiles();
#elif defined(EDGE_KERNELS_ARM64)
    case Isa::kNeon:
      return &kernels::kNeonKernels;
    case Isa::kNeonDotprod:
      return &kernels::kNeonDotprodKernels;
    case Isa::kNeonI8mm:
      return &kernels::kNeonI8mmKernels;
#endif
    default:
      return &kernels::kScalarKernels;
  }
}

const kernels::PackedKernels* packed_table(Isa isa) {
  switch (isa) {
#if defined(EDGE_KERNELS_X86)
    case Isa::kAvx2:
      return &kernels::kAvx2PackedKernels;
    case Isa::kAvx512:
      return &kernels::kAvx512PackedKernels;
    case Isa::kAmx:
      return &kernels::kAmxPackedKernels;
#elif defined(EDGE_KERNELS_ARM64)
    case Isa::kNeon:
      return &kernels::kNeonPackedKernels;
    case Isa::kNeonDotprod:
    case Isa::kNeonI8mm:  // SMMLA wants pairs of rows side by side, which SDOT and a single token do not
      return &kernels::kNeonDotprodPackedKernels;
#endif
    default:
      return &kernels::kScalarPackedKernels;
  }
}

std::atomic<Isa>& active() {
  static std::atomic<Isa> isa = supported_isas().back();
  return isa;
}

}  // namespace

std::string_view name(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

std::optional<Isa> parse_isa(std::string_view text) {
  const auto* const found = std::find(kNames.begin(), kNames.end(), text);
  if (found == kNames.end()) {
    return std::nullopt;
  }
  return static_cast<Isa>(found - kNames.begin());
}

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> isas = detect();
  return isas;
}

Isa active_isa() { return active().load(std::memory_order_relaxed); }

Status set_isa(Isa isa) {
  if (kernels::kernels_of(isa) == nullptr) {
    std::string have;
    for (const Isa supported : supported_isas()) {
      have += (have.empty() ? "" : ", ") + std::string(name(supported));
    }
    return fail(ErrorCode::kUnsupported,
                "this machine or build has no " + std::string(name(isa)) + " kernels: it has " + have);
  }
  active().store(isa, std::memory_order_relaxed);
  return {};
}

namespace kernels {

const Kernels* kernels_of(Isa isa) {
  const auto& isas = supported_isas();
  return std::find(isas.begin(), isas.end(), isa) == isas.end() ? nullptr : table(isa);
}

const Kernels& active_kernels() { return *table(active_isa()); }

const PackedKernels* packed_kernels_of(Isa isa) { return kernels_of(isa) == nullptr ? nullptr : packed_table(isa); }

const PackedKernels& active_packed_kernels() { return *packed_table(active_isa()); }

}  // namespace kernels
}  // namespace edge
