// The loops of the super neuron over a block: those of each neuron that take the zero state for granted, write codes and
// add up the gradients of x.
#pragma once

#include "loops.h"

namespace stdano {
namespace STDANO_ISA {

constexpr int kMostKept = 4;  // numbers that a neuron keeps of a step

template <class P, class real>
struct MemberSettings {
  explicit MemberSettings(const Options& o)
      : settings(make_settings_as<P>(o)), constants(make_constants(settings, real(o.tau), real(o.threshold))) {}
  P settings;
  Constants<real> constants;
};

// One neuron's loops from the zero state, which all neurons of a block share.
template <template <class, bool> class Neuron_, class real, bool soft_reset, class P>
struct SuperLoops {
  using L = Loops<Neuron_, real, soft_reset, false, P>;
  using N = typename L::N;

  static STDANO_INLINE State<real> zero_state(P p, Constants<real> c) {
    return {p.v_reset, N::initial_adapt(c)};
  }
  static void rest(const MemberSettings<P, real>& s, real* v, real* adapt, int64_t n) {
    L::initialize({s.constants, nullptr, 0}, s.settings, nullptr, nullptr, v, adapt, n);
  }

  using View = typename L::View;

  // SLIF's steps are cut into several loops (L::shorten), which one over all steps cannot be.
  static constexpr bool has_short_loops = kSpecialised && !N::needs_v && sizeof(real) == 4;

  // One step of the neurons that sets bit `bit` of the codes.
  static void encode(View c, const P& p, const real* x, real* v, real* adapt, real* kept, int32_t* codes,
                     int32_t bit, int64_t stride, bool resting, int64_t n) {
    L::shorten(c, p, adapt, kept, stride, resting, n);
    encode_loop(c, p, x, v, adapt, kept, codes, bit, stride, n);
  }
  static STDANO_LOOP void encode_loop(View c, P p, const real* __restrict x, real* __restrict v,
                                      real* __restrict adapt, const real* __restrict kept, int32_t* __restrict codes,
                                      int32_t bit, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const State<real> before = L::state_at(v, adapt, i);
      const Step<real> step = L::charge_at(c, p, x[i], before, kept, stride, i);
      const bool fired = fires(step.u);
      const State<real> after = N::update(p, step, before, fired);
      v[i] = after.v;
      if (N::has_adapt) adapt[i] = after.adapt;
      codes[i] |= -static_cast<int32_t>(fired) & bit;
    }
  }

  // The same for all steps of a short sequence. The first step's state is a constant, so its hyperbolic tangent and
  // exponential are computed once for the whole loop, and the last step's adaptation not at all.
  template <int steps>
  static STDANO_LOOP void encode_all(Constants<real> c, P p, const real* x, int64_t x_stride,
                                     int32_t* codes, int64_t stride, int32_t bit, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) encode_rest<steps>(c, p, x + i, x_stride, codes + i, stride, bit, zero_state(p, c));
  }
  template <int steps>
  static STDANO_INLINE void encode_rest(Constants<real> c, P p, const real* x, int64_t x_stride,
                                        int32_t* codes, int64_t stride, int32_t bit, State<real> before) {
    if constexpr (steps > 0) {
      const Step<real> step = N::charge(p, c, *x, before);
      const bool fired = fires(step.u);
      *codes |= -static_cast<int32_t>(fired) & bit;
      encode_rest<steps - 1>(c, p, x + x_stride, x_stride, codes + stride, stride, bit,
                             N::update(p, step, before, fired));
    }
  }

  // The gradient of the neuron's spikes from that of y; table: a row each of a, silent and fired.
  static STDANO_INLINE real spike_gradient(const real* table, int64_t columns, int64_t i, bool fired, real gy) {
    return fma_(table[i], gy, fired ? table[2 * columns + i] : table[columns + i]);
  }

  // The adjoint of one step, added to gx.
  template <Surrogate kind>
  static STDANO_LOOP void adjoint(View c, P p, real alpha, const real* __restrict x,
                                  const real* __restrict v_kept, const real* __restrict kept,
                                  const real* __restrict gy, const real* __restrict table, real* __restrict gv,
                                  real* __restrict gadapt, real* __restrict gx, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const Constants<real> constants = c.at(i);
      const Step<real> step = N::restore(constants, kept + i, stride);
      const bool fired = fires(step.u);
      State<real> g = L::state_at(gv, gadapt, i);
      const real sigma = surrogate_derivative<kind>(step.u, alpha);
      const real gs = spike_gradient(table, stride, i, fired, gy[i]);
      gx[i] += N::adjoint(p, constants, x[i], N::needs_v ? v_kept[i] : real(0), step, fired, sigma, gs, g).x;
      gv[i] = g.v;
      if (N::has_adapt) gadapt[i] = g.adapt;
    }
  }

  // Recomputation and adjoint of a short sequence in one go, added to gx.
  template <Surrogate kind, int steps>
  static STDANO_LOOP void adjoint_all(Constants<real> c, P p, real alpha, const real* x, int64_t x_stride,
                                      const real* gy, int64_t gy_stride, const real* table, int64_t columns, real* gx,
                                      int64_t gx_stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      adjoint_rest<kind, steps>(c, p, alpha, x + i, x_stride, gy + i, gy_stride, table, columns, gx + i, gx_stride,
                                i, zero_state(p, c));
    }
  }
  template <Surrogate kind, int steps>
  static STDANO_INLINE State<real> adjoint_rest(Constants<real> c, P p, real alpha, const real* x,
                                                int64_t x_stride, const real* gy, int64_t gy_stride, const real* table,
                                                int64_t columns, real* gx, int64_t gx_stride, int64_t i,
                                                State<real> before) {
    if constexpr (steps == 0) {
      return {0, 0};
    } else {
      Step<real> step = N::charge(p, c, *x, before);
      const bool fired = fires(step.u);
      State<real> g = adjoint_rest<kind, steps - 1>(c, p, alpha, x + x_stride, x_stride, gy + gy_stride, gy_stride,
                                                    table, columns, gx + gx_stride, gx_stride, i,
                                                    N::update(p, step, before, fired));
      // Nothing comes back through LLIF's last threshold, so its hyperbolic tangent is not needed: with 0 for it, the
      // product with a gradient of 0 has the same sign.
      if (steps == 1 && N::adapt_starts_at_threshold) step.tanh = 0;
      const real sigma = surrogate_derivative<kind>(step.u, alpha);
      const real gs = spike_gradient(table, columns, i, fired, *gy);
      *gx += N::adjoint(p, c, *x, before.v, step, fired, sigma, gs, g).x;
      return g;
    }
  }
};

// Calls f with the loops of each neuron that is present, from LIF to SLIF.
template <class P, class real, class F>
void for_each_member_as(const SuperNeurons& neurons, F f) {
  const auto member = [&](Neuron neuron, auto hard, auto soft) {
    const int k = static_cast<int>(neuron);
    if (!(neurons.present >> k & 1)) return;
    const MemberSettings<P, real> s(neurons.o[k]);
    neurons.o[k].soft_reset ? f(k, soft, s) : f(k, hard, s);
  };
  member(Neuron::lif, SuperLoops<LIF, real, false, P>(), SuperLoops<LIF, real, true, P>());
  member(Neuron::llif, SuperLoops<LLIF, real, false, P>(), SuperLoops<LLIF, real, true, P>());
  member(Neuron::slif, SuperLoops<SLIF, real, false, P>(), SuperLoops<SLIF, real, true, P>());
}

template <class real, class F>
void for_each_member(const SuperNeurons& neurons, F f) {
  if constexpr (kSpecialised && sizeof(real) == 4) {
    if (is_plain(neurons.o[0])) return for_each_member_as<PlainSettings<real>, real>(neurons, f);
  }
  for_each_member_as<Settings<real>, real>(neurons, f);
}

}  // namespace STDANO_ISA
}  // namespace stdano
