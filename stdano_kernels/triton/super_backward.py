"""The super neuron's backward pass: the adjoints of LIF, LLIF and SLIF, one after another over K steps at a time::

gs_k = a_k*grad + (fired_k ? fired gradient : silent gradient), which is BatchNorm's derivative
gx   = sum over k of neuron k's gx for gs_k, see ``lif.py``, ``llif.py`` and ``slif.py``

There are no checkpoints: from K steps on, the state before each chunk is computed anew from the first step.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import AHEAD, K, kernel, load_steps, offsets, store, table_entry, threads
from .llif import llif_adjoint, tanh_inhibition
from .math import tanh
from .slif import shortened, slif_adjoint, state_after
from .steps import adjoint_of_spike, charge, decay_and_gain, fire, reset
from .super_neuron import load_codes, step, zero_state


@triton.jit
def table_of(neuron: tl.constexpr, table_ptr, m, channels, channel_stride, PER_CHANNEL: tl.constexpr):
    """(a, silent, fired) of a neuron: what its gradient is made of."""
    a = table_entry(table_ptr, 3 * neuron, m, channels, channel_stride, PER_CHANNEL)
    silent = table_entry(table_ptr, 3 * neuron + 1, m, channels, channel_stride, PER_CHANNEL)
    fired = table_entry(table_ptr, 3 * neuron + 2, m, channels, channel_stride, PER_CHANNEL)
    return (a, silent, fired)


@triton.jit
def gradient_of_spike(neuron: tl.constexpr, k: tl.constexpr, grad, codes, table):
    """gs of step k; codes: three bits a step."""
    return tl.fma(table[0], grad, tl.where((codes >> (3 * k + neuron) & 1) != 0, table[2], table[1]))


@triton.jit
def lif_chunk(
    x,
    grad,
    codes,
    gx,
    steps,  # of the K that there are
    v,  # before the first of them
    gv,  # after the last
    constants,
    alpha,
    table,
    SOFT_RESET: tl.constexpr,
    SURROGATE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
):
    """gx with LIF's added to it, and gv before the first step."""
    _tau_0, theta, a, c, r, _slif_r, _gamma, _beta, _tau_min = constants
    h = ()
    for k in tl.static_range(K):
        charged = v
        if k < steps:
            charged = charge(x[k], v, a, c, r)
            v = reset(fire(charged - theta, alpha, SURROGATE, False), charged, theta, r, SOFT_RESET)
        h = h + (charged,)
    sums = ()
    for k in tl.static_range(K - 1, -1, -1):
        total = gx[k]
        if k < steps:
            gs = gradient_of_spike(0, k, grad[k], codes, table)
            _s, _q_sigma, gh = adjoint_of_spike(
                gs, gv, h[k], theta, r, alpha, SOFT_RESET, SURROGATE, False, DETACH_RESET
            )
            total += c * gh
            gv = a * gh
        sums = (total,) + sums
    return sums, gv


@triton.jit
def llif_chunk(
    x,
    grad,
    codes,
    gx,
    steps,
    v,
    theta,
    gv,
    gtheta,
    constants,
    alpha,
    table,
    SOFT_RESET: tl.constexpr,
    SURROGATE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    DETACH_ADAPT: tl.constexpr,
):
    """lif_chunk of LLIF: gx, gv, gtheta."""
    _tau_0, _threshold, a, c, r, _slif_r, gamma, _beta, _tau_min = constants
    theta_before = ()
    h = ()
    for k in tl.static_range(K):
        theta_before = theta_before + (theta,)
        charged = v
        if k < steps:
            charged = charge(x[k], v, a, c, r)
            v = reset(fire(charged - theta, alpha, SURROGATE, False), charged, theta, r, SOFT_RESET)
            theta = tl.fma(gamma, tanh_inhibition(x[k]), theta)
        h = h + (charged,)
    sums = ()
    for k in tl.static_range(K - 1, -1, -1):
        total = gx[k]
        if k < steps:
            gx_k, gh, gtheta = llif_adjoint(
                gradient_of_spike(1, k, grad[k], codes, table),
                gv,
                gtheta,
                x[k],
                h[k],
                theta_before[k],
                c,
                r,
                gamma,
                alpha,
                SOFT_RESET,
                SURROGATE,
                False,
                DETACH_RESET,
                DETACH_ADAPT,
            )
            total += gx_k
            gv = a * gh
        sums = (total,) + sums
    return sums, gv, gtheta


@triton.jit
def slif_chunk(
    x,
    grad,
    codes,
    gx,
    steps,
    v,
    p,
    gv,
    gp,
    constants,
    alpha,
    table,
    SOFT_RESET: tl.constexpr,
    LINEAR_DECAY: tl.constexpr,
    DECAY_INPUT: tl.constexpr,
    SURROGATE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    DETACH_ADAPT: tl.constexpr,
):
    """lif_chunk of SLIF: gx, gv, gp."""
    tau_0, theta, _a, _c, _r, r, _gamma, beta, tau_min = constants
    v_first = v
    p_first = p
    h = ()
    for k in tl.static_range(K):
        charged = v
        if k < steps:
            _free, _inverse_tau, a, c = shortened(tanh(p), tau_0, beta, tau_min, LINEAR_DECAY, DECAY_INPUT)
            charged = charge(x[k], v, a, c, r)
            v, p = state_after(charged, theta, r, alpha, SOFT_RESET, SURROGATE, False)
        h = h + (charged,)
    sums = ()
    for k in tl.static_range(K - 1, -1, -1):
        total = gx[k]
        if k < steps:
            before = v_first
            p_before = p_first
            if k > 0:
                before, p_before = state_after(h[k - 1], theta, r, alpha, SOFT_RESET, SURROGATE, False)
            gx_k, gv, gp, _gtau, _gtheta = slif_adjoint(
                gradient_of_spike(2, k, grad[k], codes, table),
                gv,
                gp,
                x[k],
                h[k],
                before,
                p_before,
                tau_0,
                theta,
                r,
                beta,
                tau_min,
                alpha,
                SOFT_RESET,
                LINEAR_DECAY,
                DECAY_INPUT,
                SURROGATE,
                False,
                DETACH_RESET,
                DETACH_ADAPT,
            )
            total += gx_k
        sums = (total,) + sums
    return sums, gv, gp


@kernel
def super_neuron_backward(
    grad_ptr,  # [outer][T][inner]
    x_ptr,
    codes_ptr,  # uint8, like x
    table_ptr,  # [9][channels]: a, silent, fired of LIF, of LLIF, of SLIF
    gx_ptr,  # like x
    tau,
    v_threshold,
    N,
    T,
    inner,
    channels,
    channel_stride,
    r,  # of LIF and LLIF
    slif_r,
    gamma,
    beta,
    tau_min,
    alpha,
    LIF: tl.constexpr,
    LLIF: tl.constexpr,
    SLIF: tl.constexpr,
    SOFT_RESET: tl.constexpr,
    SLIF_SOFT_RESET: tl.constexpr,
    LINEAR_DECAY: tl.constexpr,
    DECAY_INPUT: tl.constexpr,
    SURROGATE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    DETACH_ADAPT: tl.constexpr,
    PER_CHANNEL: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    m = threads(BLOCK, WIDE)
    live = m < N
    where = offsets(m, T, inner, FLAT)
    _inverse_tau, a, c = decay_and_gain(tau, LINEAR_DECAY, DECAY_INPUT)
    constants = (tau, v_threshold, a, c, r, slif_r, gamma, beta, tau_min)
    lif_gv = tl.zeros([BLOCK], tl.float32)
    llif_gv = tl.zeros([BLOCK], tl.float32)
    gtheta = tl.zeros([BLOCK], tl.float32)
    slif_gv = tl.zeros([BLOCK], tl.float32)
    gp = tl.zeros([BLOCK], tl.float32)
    for first in range((T - 1) // K * K, -1, -K):
        state = zero_state(r, slif_r, v_threshold, BLOCK)
        for earlier in range(0, first, AHEAD):
            x = load_steps(x_ptr, where, earlier, T, inner, live, AHEAD, 1)
            for k in tl.static_range(AHEAD):
                _code, state = step(
                    x[k], state, constants, LIF, LLIF, SLIF, SOFT_RESET, SLIF_SOFT_RESET, LINEAR_DECAY, DECAY_INPUT
                )
        lif_v, llif_v, theta, slif_v, p = state

        steps = T - first
        x = load_steps(x_ptr, where, first, T, inner, live, K, 1)
        grad = load_steps(grad_ptr, where, first, T, inner, live, K, 1)
        of_steps = load_codes(codes_ptr, where, first, T, inner, live, K, 1)
        codes = tl.zeros([BLOCK], tl.int32)
        gx = ()
        for k in tl.static_range(K):
            codes |= of_steps[k] << (3 * k)
            gx = gx + (tl.zeros([BLOCK], tl.float32),)
        if LIF:
            table = table_of(0, table_ptr, m, channels, channel_stride, PER_CHANNEL)
            gx, lif_gv = lif_chunk(
                x, grad, codes, gx, steps, lif_v, lif_gv, constants, alpha, table, SOFT_RESET, SURROGATE, DETACH_RESET
            )
        if LLIF:
            table = table_of(1, table_ptr, m, channels, channel_stride, PER_CHANNEL)
            gx, llif_gv, gtheta = llif_chunk(
                x,
                grad,
                codes,
                gx,
                steps,
                llif_v,
                theta,
                llif_gv,
                gtheta,
                constants,
                alpha,
                table,
                SOFT_RESET,
                SURROGATE,
                DETACH_RESET,
                DETACH_ADAPT,
            )
        if SLIF:
            table = table_of(2, table_ptr, m, channels, channel_stride, PER_CHANNEL)
            gx, slif_gv, gp = slif_chunk(
                x,
                grad,
                codes,
                gx,
                steps,
                slif_v,
                p,
                slif_gv,
                gp,
                constants,
                alpha,
                table,
                SLIF_SOFT_RESET,
                LINEAR_DECAY,
                DECAY_INPUT,
                SURROGATE,
                DETACH_RESET,
                DETACH_ADAPT,
            )
        row = first.to(tl.int64) * inner
        for k in tl.static_range(K):
            store(gx_ptr + row, where, gx[k], live & (k < steps), 1)
            row += inner
