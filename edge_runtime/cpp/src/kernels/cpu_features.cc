#include "kernels/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && (defined(__linux__) || defined(__ANDROID__))
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#endif

namespace edge::kernels {
namespace {

#if defined(__aarch64__) && defined(__APPLE__)
bool has(const char* feature) {
  int value = 0;
  std::size_t size = sizeof value;
  return ::sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
#endif

#if defined(__x86_64__) && defined(__linux__)
// The registers of tiles are large, so Linux saves them only for processes that ask (arch_prctl(2)).
bool may_use_tiles() {
  constexpr long kRequestComponent = 0x1023;  // ARCH_REQ_XCOMP_PERM, which older headers lack
  constexpr long kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestComponent, kTileData) == 0;
}
#elif defined(__x86_64__)
bool may_use_tiles() { return false; }
#endif

}  // namespace

CpuFeatures cpu_features() {
  CpuFeatures features;
#if defined(__x86_64__)
  // The compiler's runtime also asks XGETBV whether the operating system saves the registers.
  __builtin_cpu_init();
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;  // clang's list lacks it
  features.avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 && f16c;
  features.avx512_vnni = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
                         __builtin_cpu_supports("avx512vnni") != 0;
  constexpr unsigned kTile = 1U << 24U;
  constexpr unsigned kInt8 = 1U << 25U;
  features.amx_int8 = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kTile) != 0 &&
                      (edx & kInt8) != 0 && may_use_tiles();
#elif defined(__aarch64__) && (defined(__linux__) || defined(__ANDROID__))
  // The kernel's bits, as older headers lack the names.
  constexpr unsigned long kAsimdDotprod = 1UL << 20U;
  constexpr unsigned long kI8mm = 1UL << 13U;
  features.dotprod = (::getauxval(AT_HWCAP) & kAsimdDotprod) != 0;
  features.i8mm = (::getauxval(AT_HWCAP2) & kI8mm) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  features.dotprod = has("hw.optional.arm.FEAT_DotProd");
  features.i8mm = has("hw.optional.arm.FEAT_I8MM");
#endif
  return features;
}

}  // namespace edge::kernels
