// The tables of kernels of this machine, the widest first, and which of them this CPU runs.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels.h"

namespace lstm_optax {

#if defined(__x86_64__)

constexpr const Kernels* ALL[] = {&AVX512, &AVX2, &BASELINE};

struct Cpu {
  bool avx2 = false, avx512 = false, bfloat16 = false;
};

// By CPUID: __builtin_cpu_supports finds nothing in a library of zig, and older compilers do not
// know the name of bfloat16. The numbers of the bits are those of Intel's and AMD's manuals.
inline Cpu read_cpu() {
  Cpu cpu;
  unsigned a, b, c, d;
  auto all = [](unsigned bits, auto... wanted) { return ((bits >> wanted & 1) & ...) != 0; };
  constexpr int FMA = 12, OSXSAVE = 27;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !all(c, FMA, OSXSAVE)) return cpu;
  unsigned saved, high;  // the registers that the system saves for each thread
  __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return cpu;
  constexpr int LEAF_AVX2 = 5, F = 16, DQ = 17, BW = 30, VL = 31, BFLOAT16 = 5;
  cpu.avx2 = all(saved, 1, 2) && all(b, LEAF_AVX2);
  cpu.avx512 = cpu.avx2 && all(saved, 5, 6, 7) && all(b, F, DQ, BW, VL);
  cpu.bfloat16 = cpu.avx512 && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && all(a, BFLOAT16);
  return cpu;
}

inline const Cpu& this_cpu() {
  static const Cpu cpu = read_cpu();
  return cpu;
}

inline bool runs_here(const Kernels* kernels) {
  const Cpu& cpu = this_cpu();
  return kernels == &AVX512 ? cpu.avx512 : kernels == &AVX2 ? cpu.avx2 : true;
}

// The kernels that multiply in bfloat16 in place of these, or null.
inline const Kernels* in_bfloat16(const Kernels* kernels) {
  bool has = &AVX512_BF16 && this_cpu().bfloat16;
  return has && kernels == &AVX512 ? &AVX512_BF16 : nullptr;
}

#elif defined(__aarch64__)

constexpr const Kernels* ALL[] = {&NEON};

inline bool runs_here(const Kernels*) { return true; }
inline const Kernels* in_bfloat16(const Kernels*) { return nullptr; }

#endif

}  // namespace lstm_optax
