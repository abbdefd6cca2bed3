// The CPU kernels for x86-64-v3 (AVX2 and FMA).
#if defined(__x86_64__)
#define STDANO_ISA x86_64_v3
#define STDANO_TARGET "avx2,fma,bmi,bmi2"
#include "target.h"
#endif
