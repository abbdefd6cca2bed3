// The loops over the neurons of a block, at one time step or over a short sequence, around the steps of ../neurons.h:
// plain code that the compiler turns into vector instructions.
#pragma once

#include "../surrogates.h"
#include "channels.h"

namespace stdano {
namespace STDANO_ISA {

// The constants of a block's neurons: the same for all, or a table of one row a constant.
template <class real, bool by_channel>
class BlockConstants {
 public:
  static constexpr int64_t rows = by_channel ? 5 : 0;

  BlockConstants(const Options& o, const void* tau, const void* threshold, Workspace<real>& workspace,
                 int64_t columns)
      : settings_(make_settings<real>(o)),
        tau_(static_cast<const real*>(tau)),
        threshold_(static_cast<const real*>(threshold)),
        uniform_(make_constants(settings_, real(o.tau), real(o.threshold))),
        table_(workspace.take(rows)),
        columns_(columns) {}

  void prepare(const Block& b) {
    if (!by_channel) return;
    row(b, tau_, uniform_.tau, table_);
    row(b, threshold_, uniform_.threshold, table_ + 4 * columns_);
    real* __restrict table = table_;
    const Settings<real> settings = settings_;
    const int64_t columns = columns_;
    STDANO_VECTORIZE
    for (int64_t i = 0; i < b.size; ++i) {
      const real tau = limited_tau(table[i]);
      const Constants<real> c = make_constants(settings, tau, real(0));
      table[i] = tau;
      table[1 * columns + i] = c.inverse_tau;
      table[2 * columns + i] = c.decay;
      table[3 * columns + i] = c.gain;
    }
  }

  // What a loop over the block's neurons holds in registers.
  struct View {
    Constants<real> uniform;
    const real* table;
    int64_t columns;
    STDANO_INLINE Constants<real> at(int64_t i) const {
      // Spelled out: g++ does not vectorise a loop that copies a struct from memory.
      if (!by_channel) return {uniform.tau, uniform.inverse_tau, uniform.decay, uniform.gain, uniform.threshold};
      return {table[i], table[columns + i], table[2 * columns + i], table[3 * columns + i], table[4 * columns + i]};
    }
  };
  View view() const { return {uniform_, table_, columns_}; }

 private:
  static void row(const Block& b, const real* per_channel, real uniform, real* out) {
    if (per_channel) return expand(b, per_channel, out);
    for (int64_t i = 0; i < b.size; ++i) out[i] = uniform;
  }

  Settings<real> settings_;
  const real *tau_, *threshold_;
  Constants<real> uniform_;
  real* table_;
  int64_t columns_;
};

// Sequences of 4 steps, the most common length in training, have loops of their own where nothing but spikes or
// gx is written and no memory is converted: the state stays in registers. On two AVX-512 cores a LIF train step
// would take half as long again without; SLIF's steps, each a long chain, are faster cut into loops (Loops::shorten).
constexpr int kShort = 4;

enum class SurrogateValue { derivative, primitive };

template <SurrogateValue value, Surrogate kind, class real>
STDANO_LOOP void surrogate_loop(real alpha, const real* __restrict u, real* __restrict out, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    out[i] = value == SurrogateValue::derivative ? surrogate_derivative<kind>(u[i], alpha)
                                                 : surrogate_primitive<kind>(u[i], alpha);
  }
}

template <SurrogateValue value, class real>
void surrogate(int64_t kind, real alpha, const real* u, real* out, int64_t n) {
  with_surrogate(kind, [&](auto chosen) { surrogate_loop<value, decltype(chosen)::value>(alpha, u, out, n); });
}

// One neuron type's loops over a block, at one time step.
template <template <class, bool> class Neuron_, class real, bool soft_reset, bool by_channel, class P_>
struct Loops {
  using P = P_;  // Settings or PlainSettings
  using N = Neuron_<real, soft_reset>;
  using View = typename BlockConstants<real, by_channel>::View;
  static constexpr bool keep_v = N::needs_v || by_channel;

  static STDANO_INLINE State<real> state_at(const real* v, const real* adapt, int64_t i) {
    return {v[i], N::has_adapt ? adapt[i] : real(0)};
  }

  static void initialize(View c, const P& p, const real* v0, const real* adapt0, real* __restrict v,
                         real* __restrict adapt, int64_t n) {
    for (int64_t i = 0; i < n; ++i) v[i] = v0 ? v0[i] : p.v_reset;
    if (!N::has_adapt) return;
    for (int64_t i = 0; i < n; ++i) adapt[i] = adapt0 ? adapt0[i] : N::initial_adapt(c.at(i));
  }

  // SLIF's constants of a step, into the rows of `kept` that hold them: tanh, decay, inverse_tau. In loops of their own,
  // because in one the chain of dependent operations is longer than a processor looks ahead: SLIF's forward then takes
  // a quarter longer. `resting`: no neuron has a residual potential yet, so that they are the same for all.
  static void shorten(View c, const P& p, const real* adapt, real* kept, int64_t stride, bool resting,
                      int64_t n) {
    if constexpr (N::needs_v) {
      if (resting && !by_channel) {
        const Constants<real> now = N::shortened(p, c.uniform, real(0));
        for (int64_t i = 0; i < n; ++i) {
          kept[stride + i] = 0;
          kept[2 * stride + i] = now.decay;
          kept[3 * stride + i] = now.inverse_tau;
        }
        return;
      }
      tanh_loop(adapt, kept + stride, n);
      shorten_loop(c, p, kept + stride, kept + 2 * stride, kept + 3 * stride, n);
    }
  }
  static STDANO_LOOP void tanh_loop(const real* __restrict adapt, real* __restrict tanh, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) tanh[i] = tanh_(adapt[i]);
  }
  static STDANO_LOOP void shorten_loop(View c, P p, const real* __restrict tanh, real* __restrict decay,
                                       real* __restrict inverse_tau, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const Constants<real> now = N::shortened(p, c.at(i), tanh[i]);
      decay[i] = now.decay;
      inverse_tau[i] = now.inverse_tau;
    }
  }
  static STDANO_INLINE Step<real> charge_at(View c, P p, real x, State<real> before, const real* kept,
                                            int64_t stride, int64_t i) {
    if constexpr (N::needs_v) {
      return N::charge_shortened(p, c.at(i).threshold, x, before, kept[stride + i], kept[2 * stride + i],
                                 kept[3 * stride + i]);
    } else {
      return N::charge(p, c.at(i), x, before);
    }
  }

  // charge, fire and update with hard spikes; kept (and v_kept) for the adjoint where recompute is set
  template <bool recompute>
  static void advance(View c, const P& p, const real* x, real* v, real* adapt, real* spikes, real* kept,
                      real* v_kept, int64_t stride, bool resting, int64_t n) {
    shorten(c, p, adapt, kept, stride, resting, n);
    advance_loop<recompute>(c, p, x, v, adapt, spikes, kept, v_kept, stride, n);
  }
  template <bool recompute>
  static STDANO_LOOP void advance_loop(View c, P p, const real* __restrict x, real* __restrict v,
                                       real* __restrict adapt, real* __restrict spikes, real* __restrict kept,
                                       real* __restrict v_kept, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const State<real> before = state_at(v, adapt, i);
      const Step<real> step = charge_at(c, p, x[i], before, kept, stride, i);
      const bool fired = fires(step.u);
      const State<real> after = N::update(p, step, before, fired);
      v[i] = after.v;
      if (N::has_adapt) adapt[i] = after.adapt;
      if (recompute) {
        keep_new(step, kept + i, stride);
        if (keep_v) v_kept[i] = before.v;
      } else {
        spikes[i] = fired ? real(1) : real(0);
      }
    }
  }
  // What shorten() has not kept already.
  static STDANO_INLINE void keep_new(Step<real> step, real* kept, int64_t stride) {
    if (N::needs_v) {
      kept[0] = step.h;
    } else {
      N::keep(step, kept, stride);
    }
  }

  // The same in two halves, with soft spikes in between.
  static STDANO_LOOP void charge(View c, P p, const real* __restrict x, const real* __restrict v,
                     const real* __restrict adapt, real* __restrict kept, real* __restrict v_kept,
                     real* __restrict u, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const Step<real> step = N::charge(p, c.at(i), x[i], state_at(v, adapt, i));
      N::keep(step, kept + i, stride);
      if (keep_v) v_kept[i] = v[i];
      u[i] = step.u;
    }
  }
  static STDANO_LOOP void update(View c, P p, const real* __restrict kept, const real* __restrict spikes,
                     real* __restrict v, real* __restrict adapt, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const Step<real> step = N::restore(c.at(i), kept + i, stride);
      const State<real> after = N::update(p, step, state_at(v, adapt, i), spikes[i]);
      v[i] = after.v;
      if (N::has_adapt) adapt[i] = after.adapt;
    }
  }

  // Forward over all steps of a short sequence, whose state then never leaves the registers; the neurons' input is
  // mapped where `mapped` is set.
  template <int steps, bool mapped>
  static STDANO_LOOP void advance_all(View c, P p, MapRows<real> map, const real* x, const real* v0,
                                      const real* adapt0, real* spikes, int64_t time_stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      advance_rest<steps>(c.at(i), p, map.template at<mapped>(i), x + i, spikes + i, time_stride,
                          state_at(v0, adapt0, i));
    }
  }
  template <int steps, class Map>
  static STDANO_INLINE void advance_rest(Constants<real> c, P p, Map map, const real* x, real* spikes,
                                         int64_t time_stride, State<real> before) {
    if constexpr (steps > 0) {
      const Step<real> step = N::charge(p, c, map(*x), before);
      const bool fired = fires(step.u);
      *spikes = fired ? real(1) : real(0);
      advance_rest<steps - 1>(c, p, map, x + time_stride, spikes + time_stride, time_stride,
                              N::update(p, step, before, fired));
    }
  }

  // Recomputation and adjoint of a short sequence in one go: forward on the way in, backward on the way out.
  template <Surrogate kind, int steps, bool mapped>
  static STDANO_LOOP void adjoint_all(View c, P p, MapRows<real> map, real alpha, const real* x,
                                      const real* v0, const real* adapt0, const real* gs, real* gv, real* gadapt,
                                      real* gx, int64_t time_stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      MapSums<real> sums{0, 0};
      const State<real> g =
          adjoint_rest<kind, steps>(c.at(i), p, map.template at<mapped>(i), alpha, x + i, gs + i, gx + i, time_stride,
                                    state_at(v0, adapt0, i), state_at(gv, gadapt, i), sums);
      gv[i] = g.v;
      if (N::has_adapt) gadapt[i] = g.adapt;
      if (mapped) map.store(i, sums);
    }
  }
  template <Surrogate kind, int steps, class Map>
  static STDANO_INLINE State<real> adjoint_rest(Constants<real> c, P p, Map map, real alpha,
                                                const real* x, const real* gs, real* gx, int64_t time_stride,
                                                State<real> before, State<real> g, MapSums<real>& sums) {
    if constexpr (steps > 0) {
      const real in = map(*x);
      const Step<real> step = N::charge(p, c, in, before);
      const bool fired = fires(step.u);
      g = adjoint_rest<kind, steps - 1>(c, p, map, alpha, x + time_stride, gs + time_stride, gx + time_stride,
                                        time_stride, N::update(p, step, before, fired), g, sums);
      const real sigma = surrogate_derivative<kind>(step.u, alpha);
      *gx = map.adjoint(*x, N::adjoint(p, c, in, before.v, step, fired, sigma, *gs, g).x, sums);
    }
    return g;
  }

  // The adjoint of one step with hard spikes and without sums, the surrogate included.
  template <Surrogate kind>
  static STDANO_LOOP void adjoint_hard(View c, P p, real alpha, const real* __restrict x,
                                       const real* __restrict v_kept, const real* __restrict kept,
                                       const real* __restrict gs, real* __restrict gv, real* __restrict gadapt,
                                       real* __restrict gx, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const Constants<real> constants = c.at(i);
      const Step<real> step = N::restore(constants, kept + i, stride);
      State<real> g = state_at(gv, gadapt, i);
      const real sigma = surrogate_derivative<kind>(step.u, alpha);
      gx[i] = N::adjoint(p, constants, x[i], keep_v ? v_kept[i] : real(0), step, fires(step.u), sigma, gs[i], g).x;
      gv[i] = g.v;
      if (N::has_adapt) gadapt[i] = g.adapt;
    }
  }

  static STDANO_LOOP void restore_u(View c, const real* __restrict kept, real* __restrict u, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) u[i] = N::restore(c.at(i), kept + i, stride).u;
  }

  template <bool soft_spike>
  static STDANO_LOOP void adjoint(View c, P p, const real* __restrict x, const real* __restrict v_kept,
                      const real* __restrict kept, const real* __restrict spikes, const real* __restrict sigma,
                      const real* __restrict gs, real* __restrict gv, real* __restrict gadapt, real* __restrict gx,
                      real* __restrict gtau, real* __restrict gthreshold, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const Constants<real> constants = c.at(i);
      const Step<real> step = N::restore(constants, kept + i, stride);
      State<real> g = state_at(gv, gadapt, i);
      const real v = keep_v ? v_kept[i] : real(0);
      const StepGradient<real> out =
          soft_spike ? N::adjoint(p, constants, x[i], v, step, spikes[i], sigma[i], gs[i], g)
                     : N::adjoint(p, constants, x[i], v, step, fires(step.u), sigma[i], gs[i], g);
      gv[i] = g.v;
      if (N::has_adapt) gadapt[i] = g.adapt;
      gx[i] = out.x;
      if (by_channel) {
        gtau[i] += out.tau;
        gthreshold[i] += out.threshold;
      }
    }
  }
};

}  // namespace STDANO_ISA
}  // namespace stdano
