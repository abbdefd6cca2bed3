// Surrogate functions of u = h - threshold: the derivative that stands in for the spike's, and its primitive,
// which soft spikes emit. The order of the enumeration is that of SURROGATES in stdano_kernels/surrogate.py.
#pragma once

#include <type_traits>

#include "neuron_math.h"

namespace stdano {

enum Surrogate : int64_t { triangle, rectangle, sigmoid, atan, piecewise_exp, fast_sigmoid, surrogate_count };

namespace STDANO_ISA {

// Finite for every u, infinite ones included: nothing overflows but to a denominator's infinity. NaN stays NaN: a
// comparison that decides is written so that it falls to the side of u.
template <Surrogate kind, class real>
STDANO_INLINE real surrogate_derivative(real u, real alpha) {
  const real half = real(0.5);
  const real far = real(1e15);  // its square is still in the reciprocal's range
  const real a = abs_(u);
  if (kind == triangle) {
    const real d = fma_(-alpha, alpha * a, alpha);  // alpha*alpha may overflow
    return real(0) > d ? real(0) : d;
  }
  if (kind == rectangle) {
    return a == a ? (alpha * a < half ? alpha : real(0)) : a;
  }
  if (kind == sigmoid) {
    const real e = exp_or_zero(-alpha * a);
    const real d = reciprocal(real(1) + e);
    return alpha * e * d * d;
  }
  if (kind == atan) {
    const real z = real(1.5707963267948966) * alpha * a;
    return z > far ? real(0) : half * alpha * reciprocal(fma_(z, z, real(1)));
  }
  if (kind == piecewise_exp) {
    return half * alpha * exp_or_zero(-alpha * a);
  }
  const real d = fma_(alpha, a, real(1));  // fast_sigmoid
  return d > far ? real(0) : reciprocal(d * d);
}

template <Surrogate kind, class real>
STDANO_INLINE real surrogate_primitive(real u, real alpha) {
  const real half = real(0.5);
  const real a = abs_(u);
  const real sign = u < 0 ? real(-1) : real(1);
  if (kind == triangle) {
    const real z = alpha * a > real(1) ? real(1) : alpha * a;
    return half + sign * (z - half * z * z);
  }
  if (kind == rectangle) {
    const real z = alpha * a > half ? half : alpha * a;
    return half + sign * z;
  }
  if (kind == sigmoid) {
    const real e = exp_negative(-alpha * a);
    return (u < 0 ? e : real(1)) / (real(1) + e);
  }
  if (kind == atan) {
    return half + real(0.3183098861837907) * atan_(real(1.5707963267948966) * alpha * u);
  }
  if (kind == piecewise_exp) {
    const real e = half * exp_negative(-alpha * a);
    return u < 0 ? e : real(1) - e;
  }
  // fast_sigmoid; its limit where |u| is too large for the quotient (inf/inf)
  const real limit = real(1) / alpha;
  const real z = a / fma_(alpha, a, real(1));
  return half + sign * ((z < limit) | (u != u) ? z : limit);
}

// Calls f with the surrogate that is known at run time alone, as a type: std::integral_constant<Surrogate, kind>.
template <class F>
STDANO_INLINE auto with_surrogate(int64_t kind, F f) {
  switch (kind) {
    case triangle: return f(std::integral_constant<Surrogate, triangle>());
    case rectangle: return f(std::integral_constant<Surrogate, rectangle>());
    case sigmoid: return f(std::integral_constant<Surrogate, sigmoid>());
    case atan: return f(std::integral_constant<Surrogate, atan>());
    case piecewise_exp: return f(std::integral_constant<Surrogate, piecewise_exp>());
    default: return f(std::integral_constant<Surrogate, fast_sigmoid>());
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
