#pragma once

namespace edge::kernels {

struct CpuFeatures {
  bool avx2 = false;         // with FMA and F16C, and an operating system that saves the registers
  bool avx512_vnni = false;  // F, BW, DQ, VL and VNNI
  bool amx_int8 = false;     // which this process may use
  bool dotprod = false;
  bool i8mm = false;
};

CpuFeatures cpu_features();

}  // namespace edge::kernels
