// What a printed neuron is, for whoever runs it: loops over the neurons of a block, for one time step or a few.
// Plain data, without torch, so that a neuron compiled at its first use needs this file and neuron_math.h alone.
#pragma once

#include "neuron_math.h"

namespace stdano {

// A block's rows. x, gs and out lie `..._stride` apart from step to step; everything else is one row a number. A row of
// `before` and one of `after` may be the same.
template <class real>
struct Rows {
  int64_t n;
  real alpha;
  const real *x, *gs;
  real* out;  // spikes, or backward the gradient of x
  int64_t x_stride, gs_stride, out_stride;
  const real* const* constants;
  real* const* derived;        // what depends on constants alone: one number each, or a row
  const real* const* before;   // states before the step
  real* const* after;          // and behind it
  real* const* kept;           // what the early part of a step leaves for the rest of it and for its adjoint
  const real* const* grad_after;
  real* const* grad_before;
  real* const* sums;           // gradients of `derived`, added to
  real* const* grad_constants;
};

template <class real>
using Loop = void (*)(const Rows<real>&);

// The loops of a neuron. Those with `tables` have rows for `derived` and take sums. Of the others [one] takes one step,
// [unit] kUnit at once (null where a step must wait for the early part of the one before), [closed] as many as [unit], or
// one, behind which nothing is wanted and no gradient comes from. kept[t*kept + k] is what the early part of step t left.
// [same_unit] and [same_closed] are for steps with one x, from which something expensive follows; they have no early part.
constexpr int kUnit = 4;
enum LoopKind { one, unit, closed, same_unit, same_closed, loop_kinds };
template <class real>
struct Loops {
  Loop<real> derive, finish;       // constants -> derived; sums -> grad_constants
  Loop<real> early, early_tables;  // of one step; null where a step has no early part
  bool early_takes_x;
  bool last_needs_early;  // whether [closed] takes that of the last step
  Loop<real> forward_tables, backward_tables, forward[loop_kinds], backward[loop_kinds];
};

// Where a state begins.
struct Rest {
  int constant;  // its number, or -1
  double value;
};
constexpr int kMostStates = 16, kMostConstants = 32;

struct NeuronKernels {
  const char* name;  // with a hash of the source that it was printed to
  int states, constants, derived, kept;
  Rest rest[kMostStates];
  const Loops<float>* of_float;    // either may be null
  const Loops<double>* of_double;
};

}  // namespace stdano

// The iterations of the loop that follows do not touch each other's memory. Not `omp simd`: that gives the structs
// inside a loop's body memory of their own, and g++ then vectorises none of the loops below.
// STDANO_LOOP marks a function around one such loop. Inlined into its caller, or with its arguments taken apart for
// that caller (hence noipa), g++ vectorises some of them no more: SLIF's over several steps then takes 20 times as long.
#if defined(__clang__)
#define STDANO_LOOP __attribute__((noinline))
#define STDANO_VECTORIZE _Pragma("clang loop vectorize(assume_safety)")
#else
#define STDANO_LOOP __attribute__((noipa))
#define STDANO_VECTORIZE _Pragma("GCC ivdep")
#endif
