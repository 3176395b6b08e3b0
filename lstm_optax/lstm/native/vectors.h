// Vectors of floats by the compiler's extension, as wide as the instructions that are compiled for.
#pragma once

#include <stdint.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

// Factors of products are entries of 32 bits: a float, or two bfloat16, the first in the low bits.
#if defined(__AVX512BF16__)
constexpr int PARTS = 2;
#else
constexpr int PARTS = 1;
#endif

// The registers hold ROWS * PASS sums, PASS factors and an entry.
#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 6, PASS = 4;  // 24 sums in 32 registers
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 6, PASS = 2;   // 12 sums in 16 registers
#elif defined(__aarch64__)
constexpr int LANES = 4, ROWS = 6, PASS = 4;   // 24 sums in 32 registers
#else
constexpr int LANES = 4, ROWS = 2, PASS = 4;   // 8 sums in 16 registers
#endif

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE inline __attribute__((always_inline))

INLINE Vec splat(float x) { return x - Vec{}; }  // x - 0 is x, also for -0
INLINE Vec load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
INLINE void store(float* p, Vec v) { *reinterpret_cast<Unaligned*>(p) = v; }

// The first `count` of a vector, the others 0; `count` may be LANES or more.
INLINE Vec load_some(const float* p, int64_t count) {
  if (count >= LANES) return load(p);
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
#else
  Vec v{};
  for (int64_t lane = 0; lane < count; ++lane) v[lane] = p[lane];
  return v;
#endif
}

INLINE void store_some(float* p, Vec v, int64_t count) {
  if (count >= LANES) return store(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
#else
  for (int64_t lane = 0; lane < count; ++lane) p[lane] = v[lane];
#endif
}

// sum + a * b of the floats, or of both parts of the entries. Those below 2^-126 count as 0.
INLINE Vec add_product(Vec sum, Vec a, Vec b) {
#if defined(__AVX512BF16__)
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
#else
  return sum + a * b;
#endif
}

// Entries of pairs from two vectors, rounded to bfloat16, and entries of consecutive numbers.
INLINE Vec paired([[maybe_unused]] Vec first, [[maybe_unused]] Vec second) {
#if defined(__AVX512BF16__)
  typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
  auto bits = [](Vec numbers) {
    Halves halves = reinterpret_cast<Halves>(_mm512_cvtneps_pbh(numbers));
    return __builtin_convertvector(halves, Ints);
  };
  return reinterpret_cast<Vec>(bits(first) | (bits(second) << 16));
#else
  return Vec{};
#endif
}

INLINE Vec consecutive([[maybe_unused]] Vec first, [[maybe_unused]] Vec second) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<Vec>(_mm512_cvtne2ps_pbh(second, first));
#else
  return Vec{};
#endif
}

// The first `count` lanes, the others 0, whatever they were.
INLINE Vec keep(Vec v, int64_t count) {
  Ints lanes;
  for (int lane = 0; lane < LANES; ++lane) lanes[lane] = lane;
  return lanes < static_cast<int32_t>(count) ? v : Vec{};
}

// NaN stays NaN, since a comparison with it is false.
INLINE Vec clamp(Vec x, Vec low, Vec high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

struct Power {
  Vec minus_one, scale;  // exp(x) = minus_one + scale, and exp(x) - 1 = minus_one + (scale - 1)
};

// exp(x) = 2^n exp(r), n whole and |r| <= ln(2) / 2; |x| is at most 88.
INLINE Power power(Vec x) {
  const Vec magic = splat(0x1.8p23f);  // adding it rounds to a whole number, in the low bits
  Vec shifted = x * splat(0x1.715476p+0f) + magic;
  Vec n = shifted - magic;
  Vec r = x - n * splat(0x1.62e4p-1f);  // ln(2) in two parts, so that n times the first is exact
  r = r - n * splat(0x1.7f7d1cp-20f);
  // (exp(r) - 1 - r) / r^2, within 1.4e-8 of r in the sum below; fitted by iterated least squares
  Vec q = splat(0.0013946671f);
  q = q * r + splat(0.0083667105f);
  q = q * r + splat(0.04166628f);
  q = q * r + splat(0.16666542f);
  q = q * r + splat(0.5f);
  Vec minus_one = r * r * q + r;
  Ints bits = (reinterpret_cast<Ints>(shifted) << 23) + 0x3f800000;
  Vec scale = reinterpret_cast<Vec>(bits);
  return {minus_one * scale, scale};
}

// e / (e + 2), e = exp(2 x) - 1: no cancellation near 0, and never above 1.
INLINE Vec tanh(Vec x) {
  x = clamp(x, splat(-9.1f), splat(9.1f));  // beyond, the result is rounded to 1 in magnitude
  Power e = power(x + x);
  Vec minus_one = e.minus_one + (e.scale - 1.0f);
  return minus_one / (minus_one + 2.0f);
}

INLINE Vec sigmoid(Vec x) {
  x = clamp(x, splat(-87.0f), splat(87.0f));
  Power e = power(-x);
  return 1.0f / (1.0f + (e.minus_one + e.scale));
}

}  // namespace
