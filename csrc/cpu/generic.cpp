// The CPU kernels with whatever the compiler targets by default: all there is on processors other than x86-64, and on
// x86-64 what serves those without AVX2. These have become rare, so there the file is made to compile fast.
#define STDANO_ISA generic
#if defined(__x86_64__)
#if !defined(__FMA__)
#define STDANO_EMULATE_FMA
#endif
#if !defined(__clang__)
#pragma GCC optimize("O1")
#endif
#endif
#include "passes.h"
