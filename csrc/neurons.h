// The three neurons: what one time step does and its exact adjoint, for one neuron at one step. The loops over
// time and neurons are elsewhere (cpu/, cuda/); nothing here knows of torch or of memory.
//
// Symbols: x input, v potential after the reset, h potential after the charge, u = h - theta, s spike,
// theta threshold, p residual potential, r = v_reset (0 for the soft reset), gs = dL/ds.
#pragma once

#include "call.h"
#include "neuron_math.h"

namespace stdano {
namespace STDANO_ISA {

// What all neurons of a call share. rate is gamma (LLIF) or beta (SLIF). The switches in the second line are
// numbers, 0 or 1, because g++ does not vectorise a loop that chooses by a bool from outside of it.
template <class real>
struct Settings {
  real v_reset, rate, tau_min;
  real linear_decay, decay_input, detach_reset, detach_adapt;
};

// The same for the usual case, in which no switch is set: the compiler then leaves them out. As conditions that it only
// meets at run time they take most of the mask registers of AVX-512, and SLIF's adjoint twice as long.
template <class real>
struct PlainSettings {
  real v_reset, rate, tau_min;
  static constexpr real linear_decay = 0, decay_input = 0, detach_reset = 0, detach_adapt = 0;
};

inline bool is_plain(const Options& o) {
  return !(o.linear_decay || o.decay_input || o.detach_reset || o.detach_adapt);
}

template <class real>
void set(PlainSettings<real>& p, const Options& o) {
  p = {real(o.v_reset), real(o.rate), real(o.tau_min)};
}
template <class real>
void set(Settings<real>& p, const Options& o) {
  p = {real(o.v_reset),     real(o.rate),         real(o.tau_min),     real(o.linear_decay),
          real(o.decay_input), real(o.detach_reset), real(o.detach_adapt)};
}

template <class P>
P make_settings_as(const Options& o) {
  P p;
  set(p, o);
  return p;
}
template <class real>
Settings<real> make_settings(const Options& o) {
  return make_settings_as<Settings<real>>(o);
}

// What all neurons of a channel share: h = decay*(v - r) + r + gain*x.
template <class real>
struct Constants {
  real tau, inverse_tau, decay, gain, threshold;
};

// The state that a neuron carries from step to step: v, and theta (LLIF) or p (SLIF). Also used for its gradient.
template <class real>
struct State {
  real v, adapt;
};

// What the charge of one step computed and its adjoint needs again. A neuron sets and keeps what it uses.
template <class real>
struct Step {
  real h, u, theta, tanh, decay, inverse_tau;
};

// Gradients of one step: of its input, and what it adds to the gradients of tau and v_threshold.
template <class real>
struct StepGradient {
  real x, tau, threshold;
};

template <class P, class real>
STDANO_INLINE Constants<real> make_constants(P p, real tau, real threshold) {
  const real inverse = reciprocal(tau);
  const real decay = p.linear_decay != 0 ? real(1) - inverse : exp_negative(-inverse);
  const real smallest = real(1.1754943508222875e-38);  // not 0, for the sake of an infinite potential
  return {tau, inverse, decay > smallest ? decay : smallest, p.decay_input != 0 ? inverse : real(1), threshold};
}

// A time constant from a tensor, whose values nobody has looked at: at these ends exp(-1/tau) is 0 and 1, and the square
// of 1/tau is still a number.
template <class real>
STDANO_INLINE real limited_tau(real tau) {
  return tau < real(1e-19) ? real(1e-19) : (tau > real(1e30) ? real(1e30) : tau);
}

template <class real>
STDANO_INLINE bool fires(real u) {
  return u >= 0;
}

// A hard spike is a bool and selects; a soft spike is a number and multiplies. Selecting keeps 0*inf away.
template <class real>
STDANO_INLINE real times(bool s, real a) {
  return s ? a : real(0);
}
template <class real>
STDANO_INLINE real times(real s, real a) {
  return s * a;
}
template <class real>
STDANO_INLINE real times_not(bool s, real a) {
  return s ? real(0) : a;
}
template <class real>
STDANO_INLINE real times_not(real s, real a) {
  return (real(1) - s) * a;
}
template <class real>
STDANO_INLINE real mix(bool s, real h, real r) {
  return s ? r : h;
}
template <class real>
STDANO_INLINE real mix(real s, real h, real r) {
  return fma_(s, r - h, h);
}

// A vanishing weight removes a value even if that is infinite: the surrogate is 0 where u is.
template <class real>
STDANO_INLINE real weighted(real weight, real a) {
  return weight != 0 ? weight * a : real(0);
}

template <class real>
STDANO_INLINE real charge_potential(real x, real v, real decay, real gain, real r) {
  return fma_(decay, v - r, fma_(gain, x, r));
}

template <bool soft_reset, class real, class Spike>
STDANO_INLINE real reset_potential(Spike s, real h, real theta, real r) {
  return soft_reset ? h - times(s, theta) : mix(s, h, r);
}

// q = dL/ds without the adaptation's part.
template <bool soft_reset, class P, class real>
STDANO_INLINE real spike_gradient(P p, real gs, real gv, real h, real theta) {
  const real through_reset = soft_reset ? -gv * theta : gv * (p.v_reset - h);
  return p.detach_reset != 0 ? gs : gs + through_reset;
}

// dh/dtau of the charge. Where exp(-1/tau) has come to its end, it is a constant.
template <class P, class real>
STDANO_INLINE real charge_slope(P p, real x, real v, real decay, real inverse_tau) {
  const real square = inverse_tau * inverse_tau;
  const real slope = (v - p.v_reset) * (p.linear_decay != 0 ? square : decay * square);
  const real through_decay = inverse_tau > -lowest_exponent<real>() ? real(0) : slope;
  return p.decay_input != 0 ? fma_(-square, x, through_decay) : through_decay;
}

template <class real, bool soft_reset>
struct LIF {
  static constexpr bool has_adapt = false, needs_v = false, adapt_starts_at_threshold = false;
  static constexpr int kept = 1;

  static STDANO_INLINE real initial_adapt(Constants<real>) { return 0; }

  template <class P>
  static STDANO_INLINE Step<real> charge(P p, Constants<real> c, real x, State<real> a) {
    const real h = charge_potential(x, a.v, c.decay, c.gain, p.v_reset);
    return {h, h - c.threshold, c.threshold, 0, c.decay, c.inverse_tau};
  }
  template <class P, class Spike>
  static STDANO_INLINE State<real> update(P p, Step<real> b, State<real>, Spike s) {
    return {reset_potential<soft_reset>(s, b.h, b.theta, p.v_reset), 0};
  }

  static STDANO_INLINE void keep(Step<real> b, real* out, int64_t stride) { out[0 * stride] = b.h; }
  static STDANO_INLINE Step<real> restore(Constants<real> c, const real* in, int64_t stride) {
    const real h = in[0 * stride];
    return {h, h - c.threshold, c.threshold, 0, c.decay, c.inverse_tau};
  }

  // g: gradient of the state after the step; becomes that of the state before it.
  template <class P, class Spike>
  static STDANO_INLINE StepGradient<real> adjoint(P p, Constants<real> c, real x, real v,
                                                  Step<real> b, Spike s, real sigma, real gs, State<real>& g) {
    const real q = weighted(sigma, spike_gradient<soft_reset>(p, gs, g.v, b.h, b.theta));
    const real gh = (soft_reset ? g.v : times_not(s, g.v)) + q;
    const real gthreshold = soft_reset ? -q - times(s, g.v) : -q;
    g.v = b.decay * gh;
    return {c.gain * gh, weighted(gh, charge_slope(p, x, v, b.decay, b.inverse_tau)), gthreshold};
  }
};

// LLIF, eqs. 6 and 7: theta accumulates gamma*tanh(I) of the inhibitory input I = max(x, 0) - x. It starts at
// v_threshold, whose gradient is therefore that of the first theta.
template <class real, bool soft_reset>
struct LLIF {
  static constexpr bool has_adapt = true, needs_v = false, adapt_starts_at_threshold = true;
  static constexpr int kept = 3;

  static STDANO_INLINE real initial_adapt(Constants<real> c) { return c.threshold; }

  template <class P>
  static STDANO_INLINE Step<real> charge(P p, Constants<real> c, real x, State<real> a) {
    const real h = charge_potential(x, a.v, c.decay, c.gain, p.v_reset);
    const real inhibition = x > 0 ? real(0) : -x;  // not max(x, 0) - x: that is NaN at infinity
    return {h, h - a.adapt, a.adapt, tanh_(inhibition), c.decay, c.inverse_tau};
  }
  template <class P, class Spike>
  static STDANO_INLINE State<real> update(P p, Step<real> b, State<real> a, Spike s) {
    return {reset_potential<soft_reset>(s, b.h, b.theta, p.v_reset), fma_(p.rate, b.tanh, a.adapt)};
  }

  static STDANO_INLINE void keep(Step<real> b, real* out, int64_t stride) {
    out[0 * stride] = b.h;
    out[1 * stride] = b.theta;
    out[2 * stride] = b.tanh;
  }
  static STDANO_INLINE Step<real> restore(Constants<real> c, const real* in, int64_t stride) {
    const real h = in[0 * stride];
    const real theta = in[1 * stride];
    return {h, h - theta, theta, in[2 * stride], c.decay, c.inverse_tau};
  }

  template <class P, class Spike>
  static STDANO_INLINE StepGradient<real> adjoint(P p, Constants<real> c, real x, real v,
                                                  Step<real> b, Spike s, real sigma, real gs, State<real>& g) {
    const real q = weighted(sigma, spike_gradient<soft_reset>(p, gs, g.v, b.h, b.theta));
    const real gh = (soft_reset ? g.v : times_not(s, g.v)) + q;
    // dI/dx = -1 for x <= 0 (eq. 6 taken literally), 0 above
    const real through_theta = g.adapt * (p.rate * fma_(-b.tanh, b.tanh, real(1)));
    const real inhibited = x <= 0 ? through_theta : real(0);
    const real gx = c.gain * gh - (p.detach_adapt != 0 ? real(0) : inhibited);
    const real gtheta = soft_reset ? g.adapt - q - times(s, g.v) : g.adapt - q;
    g.v = b.decay * gh;
    g.adapt = p.detach_adapt != 0 ? real(0) : gtheta;
    return {gx, weighted(gh, charge_slope(p, x, v, b.decay, b.inverse_tau)), 0};
  }
};

// SLIF, eqs. 8 and 9: the residual potential p = s*u of a spike shortens the time constant of the next step,
// tau = max(tau_min, tau_0 - beta*tanh(p)).
template <class real, bool soft_reset>
struct SLIF {
  static constexpr bool has_adapt = true, needs_v = true, adapt_starts_at_threshold = false;
  static constexpr int kept = 4;

  static STDANO_INLINE real initial_adapt(Constants<real>) { return 0; }

  // In two parts: what the residual potential makes of the constants, with t = tanh(p), and the charge with those.
  template <class P>
  static STDANO_INLINE Constants<real> shortened(P p, Constants<real> c, real t) {
    const real wanted = fma_(-p.rate, t, c.tau);
    return make_constants(p, wanted >= p.tau_min ? wanted : p.tau_min, c.threshold);
  }
  template <class P>
  static STDANO_INLINE Step<real> charge_shortened(P p, real threshold, real x, State<real> a, real t,
                                                   real decay, real inverse_tau) {
    const real gain = p.decay_input != 0 ? inverse_tau : real(1);
    const real h = charge_potential(x, a.v, decay, gain, p.v_reset);
    return {h, h - threshold, threshold, t, decay, inverse_tau};
  }
  template <class P>
  static STDANO_INLINE Step<real> charge(P p, Constants<real> c, real x, State<real> a) {
    const real t = tanh_(a.adapt);
    const Constants<real> now = shortened(p, c, t);
    return charge_shortened(p, c.threshold, x, a, t, now.decay, now.inverse_tau);
  }
  template <class P, class Spike>
  static STDANO_INLINE State<real> update(P p, Step<real> b, State<real>, Spike s) {
    return {reset_potential<soft_reset>(s, b.h, b.theta, p.v_reset), times(s, b.u)};
  }

  static STDANO_INLINE void keep(Step<real> b, real* out, int64_t stride) {
    out[0 * stride] = b.h;
    out[1 * stride] = b.tanh;
    out[2 * stride] = b.decay;
    out[3 * stride] = b.inverse_tau;
  }
  static STDANO_INLINE Step<real> restore(Constants<real> c, const real* in, int64_t stride) {
    const real h = in[0 * stride];
    return {h, h - c.threshold, c.threshold, in[1 * stride], in[2 * stride], in[3 * stride]};
  }

  template <class P, class Spike>
  static STDANO_INLINE StepGradient<real> adjoint(P p, Constants<real> c, real x, real v,
                                                  Step<real> b, Spike s, real sigma, real gs, State<real>& g) {
    const real gp = p.detach_adapt != 0 ? real(0) : g.adapt;
    const real through_spike = fma_(gp, b.u, spike_gradient<soft_reset>(p, gs, g.v, b.h, b.theta));
    const real gu = weighted(sigma, through_spike) + times(s, gp);
    const real gh = (soft_reset ? g.v : times_not(s, g.v)) + gu;
    const real gthreshold = soft_reset ? -gu - times(s, g.v) : -gu;
    const bool unclamped = fma_(-p.rate, b.tanh, c.tau) >= p.tau_min;
    const real gtau = unclamped ? weighted(gh, charge_slope(p, x, v, b.decay, b.inverse_tau)) : real(0);
    const real gain = p.decay_input != 0 ? b.inverse_tau : real(1);
    g.v = b.decay * gh;
    g.adapt = p.detach_adapt != 0 ? real(0) : weighted(-p.rate * fma_(-b.tanh, b.tanh, real(1)), gtau);
    return {gain * gh, gtau, gthreshold};
  }
};

}  // namespace STDANO_ISA
}  // namespace stdano
