// What printed steps and their adjoints compute with.
#pragma once

#include "../half.h"

namespace stdano {
namespace STDANO_ISA {

// As all backends do.
struct Exact {
  template <class real>
  static STDANO_INLINE bool fires(real u, bool) {
    return u >= 0;
  }
  template <class real>
  static STDANO_INLINE real tanh(real x) {
    return tanh_(x);
  }
  template <class real>
  static STDANO_INLINE real reciprocal(real d) {
    return STDANO_ISA::reciprocal(d);
  }
};

// Where spikes are given, by a device's approximations: tanh is off by 2e-7, 1/d by 1 ulp. The exponential of a decay
// stays as it is, because a device's is 2 ulp off, which the potential would gather over the steps. A host has none of
// them.
struct Near {
  static STDANO_INLINE bool fires(float, bool fired) { return fired; }
#if defined(__CUDA_ARCH__)
  static __device__ __forceinline__ float about_reciprocal(float d) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));
    return r;
  }
  static __device__ __forceinline__ float tanh(float x) {
    float e;  // exp(-2|x|)
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(abs_(x) * -2.88539008f));
    return copysign_((1.0f - e) * about_reciprocal(1.0f + e), x);
  }
  static __device__ __forceinline__ float reciprocal(float d) {
    const float r = about_reciprocal(d);
    return fma_(r, fma_(-d, r, 1.0f), r);
  }
#else
  static STDANO_INLINE float tanh(float x) { return Exact::tanh(x); }
  static STDANO_INLINE float reciprocal(float d) { return Exact::reciprocal(d); }
#endif
};

}  // namespace STDANO_ISA
}  // namespace stdano
