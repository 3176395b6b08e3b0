// The tables of kernels of this machine, the widest first, and which of them this CPU runs.
#pragma once

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
  if (kernels == &AVX512 && __builtin_cpu_supports("avx512bf16")) return &AVX512_BF16;
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
