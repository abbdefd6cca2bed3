"""What the three neurons share within one time step, in the order of ``csrc/neurons.h``.

Symbols: x input, v potential after the reset, h potential after the charge, u = h - theta, s spike, theta threshold,
r = v_reset (0 for the soft reset), gs = dL/ds, gv = dL/dv. A hard spike is a truth value and selects; a soft spike is a
number and multiplies. Selecting keeps 0*inf away.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .math import exp_negative, reciprocal
from .surrogates import derivative, primitive


@triton.jit
def decay_and_gain(tau, LINEAR_DECAY: tl.constexpr, DECAY_INPUT: tl.constexpr):
    """(1/tau, a, c) of the charge. a is never 0, for the sake of an infinite potential."""
    inverse_tau = reciprocal(tau)
    if LINEAR_DECAY:
        decay = 1.0 - inverse_tau
    else:
        decay = exp_negative(-inverse_tau)
    decay = tl.where(decay > 1.1754943508222875e-38, decay, 1.1754943508222875e-38)
    return inverse_tau, decay, gain_of(inverse_tau, DECAY_INPUT)


@triton.jit
def gain_of(inverse_tau, DECAY_INPUT: tl.constexpr):
    if DECAY_INPUT:
        return inverse_tau
    else:
        return 1.0


@triton.jit
def transformed(x, affine):
    """The neuron's input: x, or scale*x + shift where x is what common.load_input left of it."""
    if len(affine) == 0:
        return x
    else:
        return tl.fma(affine[1], x, affine[2])


@triton.jit
def before_transform(gradient, affine):
    """The gradient of x from that of the neuron's input."""
    if len(affine) == 0:
        return gradient
    else:
        return affine[1] * gradient


@triton.jit
def charge(x, v, decay, gain, r):
    return tl.fma(decay, v - r, tl.fma(gain, x, r))


@triton.jit
def fire(u, alpha, SURROGATE: tl.constexpr, SOFT_SPIKE: tl.constexpr):
    if SOFT_SPIKE:
        return primitive(u, alpha, SURROGATE)
    else:
        return u >= 0


@triton.jit
def reset(s, h, theta, r, SOFT_RESET: tl.constexpr):
    if SOFT_RESET:
        return h - times(s, theta)
    elif s.dtype == tl.int1:
        return tl.where(s, r, h)
    else:
        return tl.fma(s, r - h, h)


@triton.jit
def times(s, a):
    if s.dtype == tl.int1:
        return tl.where(s, a, 0.0)
    else:
        return s * a


@triton.jit
def times_not(s, a):
    if s.dtype == tl.int1:
        return tl.where(s, 0.0, a)
    else:
        return (1.0 - s) * a


@triton.jit
def weighted(weight, a):
    """weight*a; a vanishing weight removes a value even if that is infinite."""
    return tl.where(weight != 0, weight * a, 0.0)


@triton.jit
def spike_gradient(gs, gv, h, theta, r, SOFT_RESET: tl.constexpr, DETACH_RESET: tl.constexpr):
    """dL/ds without the adaptation's part."""
    if DETACH_RESET:
        return gs
    elif SOFT_RESET:
        return gs + -gv * theta
    else:
        return gs + gv * (r - h)


@triton.jit
def past_reset(s, gv, SOFT_RESET: tl.constexpr):
    """dL/dh through the reset, the spike held fixed."""
    if SOFT_RESET:
        return gv
    else:
        return times_not(s, gv)


@triton.jit
def adjoint_of_spike(
    gs,
    gv,
    h,
    theta,
    r,
    alpha,
    SOFT_RESET: tl.constexpr,
    SURROGATE: tl.constexpr,
    SOFT_SPIKE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
):
    """(s, q*sigma, gh) of a neuron whose spike goes nowhere but out and into the reset."""
    u = h - theta
    s = fire(u, alpha, SURROGATE, SOFT_SPIKE)
    sigma = derivative(u, alpha, SURROGATE)
    q_sigma = weighted(sigma, spike_gradient(gs, gv, h, theta, r, SOFT_RESET, DETACH_RESET))
    return s, q_sigma, past_reset(s, gv, SOFT_RESET) + q_sigma


@triton.jit
def charge_slope(x, v, decay, inverse_tau, r, LINEAR_DECAY: tl.constexpr, DECAY_INPUT: tl.constexpr):
    """dh/dtau of the charge. Where exp(-1/tau) has come to its end, it is a constant."""
    square = inverse_tau * inverse_tau
    if LINEAR_DECAY:
        through_decay = (v - r) * square
    else:
        through_decay = tl.where(inverse_tau > 87.3, 0.0, (v - r) * (decay * square))
    if DECAY_INPUT:
        return tl.fma(-square, x, through_decay)
    else:
        return through_decay
