// Vectors of W floats, their exponential, and bf16 in memory, by GCC's and Clang's vector extensions: no instruction set
// is named but where bf16 has its own.
#pragma once

#include <cstdint>
#include <cstring>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
constexpr int W = 16;
#else
constexpr int W = 8;
#endif

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));
typedef uint16_t vh __attribute__((vector_size(W * 2)));

typedef uint16_t bf16;

#define INLINE static inline __attribute__((always_inline))

INLINE vf splat(float x) { return x - vf{}; }

INLINE vf load(const float* p) {
  vf x;
  memcpy(&x, p, sizeof x);
  return x;
}

INLINE void store(float* p, vf x) { memcpy(p, &x, sizeof x); }

INLINE vf load(const bf16* p) {
  vh x;
  memcpy(&x, p, sizeof x);
  return (vf)(__builtin_convertvector(x, vu) << 16);
}

// To the nearest, ties to even, as PyTorch does; NaN stays NaN.
INLINE void store(bf16* p, vf x) {
#if defined(__AVX512BF16__) && defined(__AVX512F__)
  __m256bh y = _mm512_cvtneps_pbh((__m512)x);
  memcpy(p, &y, sizeof y);
#else
  vu bits = (vu)x;
  vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  vu nan = (vu)(x != x);
  vh y = __builtin_convertvector((rounded & ~nan) | (0x7fc0 & nan), vh);
  memcpy(p, &y, sizeof y);
#endif
}

// The first n < W values, the rest 0; and storing as many.
template <typename T>
INLINE vf load_part(const T* p, int n) {
  T full[W] = {};
  memcpy(full, p, n * sizeof(T));
  return load(full);
}

template <typename T>
INLINE void store_part(T* p, vf x, int n) {
  T full[W];
  store(full, x);
  memcpy(p, full, n * sizeof(T));
}

INLINE vf select(vi mask, vf yes, vf no) { return (vf)(((vi)yes & mask) | ((vi)no & ~mask)); }
// The larger one; NaN if b is.
INLINE vf larger(vf a, vf b) { return select(a > b, a, b); }

// exp to about two units in the last place, for arguments up to 88; 0 below -87.3. NaN stays NaN.
INLINE vf vexp(vf x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  vf low = splat(-87.3f);
  vf clamped = select(x < low, low, x);
  vf shifted = clamped * 1.44269504088896341f + magic;
  vf n = shifted - magic;
  vf r = clamped - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  vf power = (vf)((vu)((vi)shifted + (127 - 0x4b400000)) << 23);
  return select(x < low, vf{}, p * power);
}

INLINE vf sigmoid(vf x) {
  vf high = splat(88.0f), minus = -x;
  return 1.0f / (1.0f + vexp(select(minus > high, high, minus)));
}

// Element i takes the place of element i ^ distance.
template <int distance>
INLINE vf swapped(vf x) {
  vi to;
  for (int i = 0; i < W; i++) to[i] = i ^ distance;
#ifdef __clang__
  vf y;
  for (int i = 0; i < W; i++) y[i] = x[to[i]];
  return y;
#else
  return __builtin_shuffle(x, to);
#endif
}

INLINE float sum(vf x) {
  if (W == 16) x += swapped<8>(x);
  x += swapped<4>(x);
  x += swapped<2>(x);
  x += swapped<1>(x);
  return x[0];
}

INLINE float largest(vf x) {
  if (W == 16) x = larger(x, swapped<8>(x));
  x = larger(x, swapped<4>(x));
  x = larger(x, swapped<2>(x));
  x = larger(x, swapped<1>(x));
  return x[0];
}
