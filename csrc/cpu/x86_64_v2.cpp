// The CPU kernels for x86-64-v2 (SSE4.2, no fused multiply-add): the baseline.
#if defined(__x86_64__)
#define STDANO_ISA x86_64_v2
#define STDANO_EMULATE_FMA
#define STDANO_TARGET "sse4.2,popcnt"
#include "target.h"
#endif
