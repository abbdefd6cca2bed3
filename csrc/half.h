// float32 <-> bfloat16 and float16 in integer arithmetic: vectorisable for every instruction set, rounding to
// nearest even, NaN and subnormal numbers as torch has them. A device has
// instructions for it (to bfloat16 from compute capability 8.0 on), which give the same bits but for a NaN's payload.
#pragma once

#include "neuron_math.h"

namespace stdano {
namespace STDANO_ISA {

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

STDANO_INLINE float convert(float a, float) { return a; }
STDANO_INLINE double convert(double a, double) { return a; }

STDANO_INLINE float convert(bfloat16 a, float) { return bit_cast<float>(static_cast<uint32_t>(a.bits) << 16); }

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
STDANO_INLINE bfloat16 convert(float a, bfloat16) {
  bfloat16 out;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(a));
  return out;
}
#else
STDANO_INLINE bfloat16 convert(float a, bfloat16) {
  const uint32_t bits = bit_cast<uint32_t>(a);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return {static_cast<uint16_t>(a == a ? rounded : 0x7FC0u)};
}
#endif

#if defined(__CUDA_ARCH__)
STDANO_INLINE float convert(float16 a, float) {
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(a.bits));
  return out;
}

STDANO_INLINE float16 convert(float a, float16) {
  float16 out;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(a));
  return out;
}
#else
STDANO_INLINE float convert(float16 a, float) {
  const uint32_t magnitude = static_cast<uint32_t>(a.bits & 0x7FFF) << 13;
  const float scaled = bit_cast<float>(magnitude) * 5.192296858534828e33f;  // 2^112; subnormals come out right
  const uint32_t special = magnitude >= 0x0F800000u ? 0x7F800000u : 0u;     // inf, NaN
  const uint32_t sign = static_cast<uint32_t>(a.bits & 0x8000) << 16;
  return bit_cast<float>(bit_cast<uint32_t>(scaled) | special | sign);
}

STDANO_INLINE float16 convert(float a, float16) {
  const uint32_t bits = bit_cast<uint32_t>(a);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  const uint32_t sign = (bits >> 16) & 0x8000u;
  // Below 2^-14 adding 0.5 leaves the subnormal number, rounded, in the low bits.
  const uint32_t small = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0x0FFFu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t large = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
  const uint32_t finite = magnitude < 0x38800000u ? small : normal;
  return {static_cast<uint16_t>((magnitude >= 0x47800000u ? large : finite) | sign)};
}
#endif

}  // namespace STDANO_ISA
}  // namespace stdano
