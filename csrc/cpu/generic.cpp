// The CPU kernels for processors other than x86-64, with whatever the compiler targets by default.
#if !defined(__x86_64__)
#define STDANO_ISA generic
#include "passes.h"
#endif
