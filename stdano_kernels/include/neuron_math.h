// Scalar mathematics shared by every compiled kernel: plain inline functions, without branches, that a
// compiler can vectorise on the host and that mean the same bits on the device.
//
// Spikes must agree between backends in all bits, so the evaluation order is fixed: an fma stands where an
// fma is meant, and the files that include this one are compiled with contraction off. tanh, exp and the
// reciprocal are written out here because no two mathematical libraries agree in the last bit.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__CUDACC__)
#include <cmath>
#define STDANO_C(function) function
#else  // <cmath> takes a compiler as long as a neuron at its first use
#define STDANO_C(function) __builtin_##function
#endif

#if defined(STDANO_INLINE)  // a build for checks: it shall take less time than its program
#elif defined(__CUDACC__)
#define STDANO_INLINE __host__ __device__ __forceinline__
#else
#define STDANO_INLINE inline __attribute__((always_inline))
#endif

// Each build of the CPU kernels (one an instruction set) lives in a namespace of its own: otherwise the linker
// would merge their inline functions and could keep the one that this processor cannot execute.
#ifndef STDANO_ISA
#define STDANO_ISA generic
#endif

namespace stdano {
namespace STDANO_ISA {

template <class To, class From>
STDANO_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs types of one size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

#if defined(__CUDA_ARCH__)
STDANO_INLINE double fma_(double a, double b, double c) { return __fma_rn(a, b, c); }
#else
STDANO_INLINE double fma_(double a, double b, double c) { return __builtin_fma(a, b, c); }
#endif

#if defined(__CUDA_ARCH__)
STDANO_INLINE float fma_(float a, float b, float c) { return __fmaf_rn(a, b, c); }
#elif defined(STDANO_EMULATE_FMA)
// A processor without fused multiply-add (x86-64 without AVX2). The product of two floats is exact in double; the sum is
// rounded to odd, so that the final rounding to float equals the single rounding of a real fma. A call to fmaf
// would give the same bits but would keep the loops from being vectorised.
STDANO_INLINE float fma_(float a, float b, float c) {
  const double p = static_cast<double>(a) * static_cast<double>(b);
  const double d = static_cast<double>(c);
  const double s = p + d;
  const double t = s - p;
  const double e = (p - (s - t)) + (d - t);  // what the sum lost, exactly
  const int64_t bits = bit_cast<int64_t>(s);
  const int64_t away = ((e > 0) == (s > 0)) ? bits + 1 : bits - 1;
  const bool inexact = (e != 0) & (e == e) & ((bits & 1) == 0);
  return static_cast<float>(bit_cast<double>(inexact ? away : bits));
}
#else
STDANO_INLINE float fma_(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#endif

STDANO_INLINE float abs_(float x) { return STDANO_C(fabsf)(x); }
STDANO_INLINE double abs_(double x) { return STDANO_C(fabs)(x); }
STDANO_INLINE float sqrt_(float x) { return STDANO_C(sqrtf)(x); }
STDANO_INLINE double sqrt_(double x) { return STDANO_C(sqrt)(x); }
STDANO_INLINE float copysign_(float x, float sign) { return STDANO_C(copysignf)(x, sign); }
STDANO_INLINE double copysign_(double x, double sign) { return STDANO_C(copysign)(x, sign); }

// 1/d for 2^-100 < d < 2^100. Two cubic steps from an integer estimate (12 % off): six fma, where a vector
// division costs as much as sixteen. Exact for powers of two; 1 ulp elsewhere.
STDANO_INLINE float reciprocal(float d) {
  float r = bit_cast<float>(0x7EF311C3u - bit_cast<uint32_t>(d));
  float e = fma_(-d, r, 1.0f);
  r = fma_(r, fma_(e, e, e), r);
  e = fma_(-d, r, 1.0f);
  return fma_(r, fma_(e, e, e), r);
}

STDANO_INLINE double reciprocal(double d) { return 1.0 / d; }

// exp(x) = scale * (1 + fraction) for x <= 0, the common part of exp and tanh: x = n*ln(2) + r, |r| <= ln(2)/2,
// scale = 2^n, fraction = e^r - 1. Below the range of normal numbers x is limited, so that a decay factor times
// an infinite potential stays infinite instead of turning into 0*inf = NaN.
template <class real>
struct Exponential {
  real scale, fraction;
};

// Below this exp is a constant.
template <class real>
STDANO_INLINE constexpr real lowest_exponent() {
  return sizeof(real) == 4 ? real(-87.3) : real(-708);
}

STDANO_INLINE Exponential<float> exponential(float x) {
  x = x < lowest_exponent<float>() ? lowest_exponent<float>() : x;
  const float shifted = fma_(x, 1.44269504f, 12582912.0f);  // 1.5 * 2^23: the low bits hold n
  const float n = shifted - 12582912.0f;
  float r = fma_(n, -0.693145751953125f, x);  // ln 2 in two parts, the first short enough for an exact product
  r = fma_(n, -1.42860677e-6f, r);
  // minimax, relative error of the fraction 1.4e-8; summed in pairs, which shortens the chain of dependent steps
  const float square = r * r;
  const float low = fma_(r, 0.166665436f, 0.499999982f);
  const float high = fma_(square, 0.00138825219f, fma_(r, 0.0083665191f, 0.0416671998f));
  const float p = fma_(square, high, low);
  const uint32_t scale = (bit_cast<uint32_t>(shifted) << 23) + 0x3F800000u;
  return {bit_cast<float>(scale), fma_(square, p, r)};
}

STDANO_INLINE Exponential<double> exponential(double x) {
  x = x < lowest_exponent<double>() ? lowest_exponent<double>() : x;
  const double shifted = fma_(x, 1.4426950408889634, 6755399441055744.0);  // 1.5 * 2^52
  const double n = shifted - 6755399441055744.0;
  double r = fma_(n, -6.93147180369123816490e-01, x);
  r = fma_(n, -1.90821492927058770002e-10, r);
  double p = 1.0 / 6227020800.0;  // Taylor to r^13: the remainder is below 5e-18
  p = fma_(p, r, 1.0 / 479001600.0);
  p = fma_(p, r, 1.0 / 39916800.0);
  p = fma_(p, r, 1.0 / 3628800.0);
  p = fma_(p, r, 1.0 / 362880.0);
  p = fma_(p, r, 1.0 / 40320.0);
  p = fma_(p, r, 1.0 / 5040.0);
  p = fma_(p, r, 1.0 / 720.0);
  p = fma_(p, r, 1.0 / 120.0);
  p = fma_(p, r, 1.0 / 24.0);
  p = fma_(p, r, 1.0 / 6.0);
  p = fma_(p, r, 0.5);
  const uint64_t scale = (bit_cast<uint64_t>(shifted) << 52) + 0x3FF0000000000000u;
  return {bit_cast<double>(scale), fma_(r * r, p, r)};
}

// exp(x) for x <= 0, at most 1.1 ulp off; for the most negative x the smallest normal number.
template <class real>
STDANO_INLINE real exp_negative(real x) {
  const Exponential<real> e = exponential(x);
  return fma_(e.scale, e.fraction, e.scale);
}

// The same with 0 at the end.
template <class real>
STDANO_INLINE real exp_or_zero(real x) {
  return x < lowest_exponent<real>() ? real(0) : exp_negative(x);
}

// tanh(x) = -w/(2 + w) with w = exp(-2|x|) - 1, which loses nothing near 0; at most 3 ulp off. A rational
// approximation of degrees 4/4 costs a fifth less and is 5.6 ulp off.
template <class real>
STDANO_INLINE real tanh_(real x) {
  const Exponential<real> e = exponential(real(-2) * abs_(x));
  const real w = fma_(e.scale, e.fraction, e.scale - real(1));
  return copysign_(w * reciprocal(w + real(2)), x);
}

// exp(x) for any x, the square of exp(x/2), at most 3 ulp off: 0 below the range of normal numbers, infinity above that
// of all.
template <class real>
STDANO_INLINE real exp_(real x) {
  const real top = sizeof(real) == 4 ? real(88.7228) : real(709.78);
  const Exponential<real> e = exponential(real(0.5) * (x > top ? top : x));
  const real root = fma_(e.scale, e.fraction, e.scale);
  const real value = x < lowest_exponent<real>() ? real(0) : root * root;
  return x > top ? static_cast<real>(__builtin_inff()) : value;
}

// arctan, at most 2 ulp off: an odd minimax polynomial up to 1, beyond it the complement of the reciprocal's. What
// lies above 1e8 is pi/2 to all bits, and the reciprocal could not take it.
STDANO_INLINE float atan_(float x) {
  const float a = abs_(x);
  const float limited = a > 1e8f ? 1e8f : a;
  const bool large = a > 1.0f;
  const float w = large ? reciprocal(limited) : limited;
  const float z = w * w;
  float p = fma_(z, -0.00179362181f, 0.010914606f);
  p = fma_(z, p, -0.0311778467f);
  p = fma_(z, p, 0.0579575934f);
  p = fma_(z, p, -0.0840345025f);
  p = fma_(z, p, 0.109521858f);
  p = fma_(z, p, -0.142642424f);
  p = fma_(z, p, 0.199985489f);
  p = fma_(z, p, -0.333332986f);
  const float r = fma_(w * z, p, w);
  return copysign_(large ? 1.57079633f - r : r, x);
}

STDANO_INLINE double atan_(double x) { return STDANO_C(atan)(x); }

// 1/(1 + exp(-x)), with the exponential of a number that is not positive.
template <class real>
STDANO_INLINE real sigmoid_(real x) {
  const real e = exp_or_zero(-abs_(x));
  const real d = reciprocal(real(1) + e);
  return x < 0 ? e * d : (x == x ? d : x);
}

// ln(x), at most 0.9 ulp off: x = 2^e * m with m around 1, and an odd-even minimax polynomial of m - 1.
STDANO_INLINE float log_(float x) {
  const bool tiny = x < 1.17549435e-38f;  // subnormal: exact once scaled
  const uint32_t bits = bit_cast<uint32_t>(tiny ? x * 8388608.0f : x);
  const float from = bit_cast<float>((bits & 0x7FFFFFu) | 0x3F800000u);
  const bool large = from > 1.41421356f;
  const float r = (large ? 0.5f * from : from) - 1.0f;
  const float e = static_cast<float>(static_cast<int32_t>(bits >> 23) - 127) + ((large ? 1.0f : 0.0f) - (tiny ? 23.0f : 0.0f));
  float p = fma_(r, 0.06915723f, -0.11790077f);
  p = fma_(p, r, 0.11872947f);
  p = fma_(p, r, -0.12384298f);
  p = fma_(p, r, 0.14218657f);
  p = fma_(p, r, -0.16669254f);
  p = fma_(p, r, 0.20002227f);
  p = fma_(p, r, -0.24999987f);
  p = fma_(p, r, 0.3333331f);
  const float square = r * r;
  const float y = fma_(r * square, p, fma_(e, -2.12194440e-4f, -0.5f * square));  // ln 2 in two parts
  const float value = fma_(e, 0.693359375f, r + y);
  const float end = x == 0 ? -__builtin_inff() : (x < 0 ? __builtin_nanf("") : x);  // infinity and NaN as they are
  return (x > 0) & (x < __builtin_inff()) ? value : end;
}
STDANO_INLINE double log_(double x) { return STDANO_C(log)(x); }

// A time constant from a tensor, whose values nobody has looked at: at these ends exp(-1/tau) is 0 and 1, and the square
// of 1/tau is still a number.
template <class real>
STDANO_INLINE real limited(real tau) {
  return tau < real(1e-19) ? real(1e-19) : (tau > real(1e30) ? real(1e30) : tau);
}

}  // namespace STDANO_ISA
}  // namespace stdano
