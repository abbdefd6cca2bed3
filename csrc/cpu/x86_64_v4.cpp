// The CPU kernels for x86-64-v4 (AVX-512).
#if defined(__x86_64__)
#define STDANO_ISA x86_64_v4
#if defined(__clang__)
#define STDANO_TARGET "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2"
#else
// Left alone, g++ uses half of each register for fear of lower clocks; the loops here gain by the whole.
#define STDANO_TARGET "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2,prefer-vector-width=512"
#endif
#include "target.h"
#endif
