// Compiles passes.h for the instruction set STDANO_TARGET: every build of this library holds all of them, and the
// processor decides at run time. Standard headers come first, so that none of their functions is compiled for a
// processor that may not be there.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#if defined(__clang__)
#define STDANO_PRAGMA(text) _Pragma(#text)
#define STDANO_ATTRIBUTE(target_) STDANO_PRAGMA(clang attribute push(__attribute__((target(target_))), apply_to = function))
STDANO_ATTRIBUTE(STDANO_TARGET)
#include "passes.h"
#pragma clang attribute pop
#else
#define STDANO_PRAGMA(text) _Pragma(#text)
#define STDANO_GCC_TARGET(target_) STDANO_PRAGMA(GCC target(target_))
#pragma GCC push_options
STDANO_GCC_TARGET(STDANO_TARGET)
#include "passes.h"
#pragma GCC pop_options
#endif
