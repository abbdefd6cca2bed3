// The interface between the operators (ops.cpp, which knows torch) and the CPU kernels (passes.h, which does
// not): one table of functions an instruction set.
#pragma once

#include "../call.h"

namespace stdano {

// forward(call, begin, end) handles blocks begin..end-1, backward slabs. How neurons are divided depends on the
// call's shape alone, never on the number of threads, so sums are the same on every machine.
struct Kernels {
  int64_t (*blocks)(const Geometry&);
  int64_t (*slabs)(const Geometry&, bool by_channel);
  void (*forward)(const ForwardCall&, int64_t begin, int64_t end);
  void (*backward)(const BackwardCall&, int64_t begin, int64_t end);
};

#if defined(__x86_64__)
namespace x86_64_v2 {
extern const Kernels kernels;
}
namespace x86_64_v3 {
extern const Kernels kernels;
}
namespace x86_64_v4 {
extern const Kernels kernels;
}
#else
namespace generic {
extern const Kernels kernels;
}
#endif

}  // namespace stdano
