// The tables of kernels of this machine, the widest first, and which of them this CPU runs.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels.h"

namespace lstm_optax {

#if defined(__x86_64__)
constexpr const Kernels* ALL[] = {&AVX512, &AVX2, &BASELINE};
#elif defined(__aarch64__)
constexpr const Kernels* ALL[] = {&NEON};
#endif

// The kernels of ALL that multiply in bfloat16 in place of these, or null.
inline const Kernels* in_bfloat16([[maybe_unused]] const Kernels* kernels) {
#if defined(__x86_64__)
  unsigned a, b, c, d;  // of CPUID leaf 7.1: older compilers have no name for bit 5 of EAX
  bool has = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
  if (kernels == &AVX512 && &AVX512_BF16 && has) return &AVX512_BF16;
#endif
  return nullptr;
}

inline bool runs_here([[maybe_unused]] const Kernels* kernels) {
#if defined(__x86_64__)
  if (kernels == &AVX512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  if (kernels == &AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return true;
}

}  // namespace lstm_optax
