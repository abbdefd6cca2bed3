// The CPU kernels with whatever the compiler targets by default: all there is on processors other than x86-64, and on
// x86-64 what serves those without AVX2.
#define STDANO_ISA generic
#if defined(__x86_64__) && !defined(__FMA__)
#define STDANO_EMULATE_FMA
#endif
#include "passes.h"
