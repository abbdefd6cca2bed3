"""LLIF (eqs. 6 and 7): LIF, see ``lif.py``, whose threshold theta grows with inhibitory input I = max(x, 0) - x::

theta' = theta + gamma*tanh(I);   theta starts at v_threshold

gx -= gtheta'*gamma*(1 - tanh(I)^2)  where x <= 0;   gtheta = gtheta' - q*sigma(u) (- gv*s with the soft reset)
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import (
    AHEAD,
    K,
    affine_of,
    constant,
    kernel,
    load,
    load_input,
    load_or,
    load_steps,
    offsets,
    slab_neuron,
    slab_thread,
    store,
    store_sum,
    threads,
    time_constant,
)
from .math import tanh
from .steps import (
    adjoint_of_spike,
    before_transform,
    charge,
    charge_slope,
    decay_and_gain,
    fire,
    reset,
    times,
    transformed,
    weighted,
)


@triton.jit
def tanh_inhibition(x):
    return tanh(tl.where(x > 0, 0.0, -x))  # not max(x, 0) - x: that is NaN at infinity


@triton.jit
def llif_adjoint(
    gs,
    gv,
    gtheta,
    x,
    h,
    theta,
    c,
    r,
    gamma,
    alpha,
    SOFT_RESET: tl.constexpr,
    SURROGATE: tl.constexpr,
    SOFT_SPIKE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    DETACH_ADAPT: tl.constexpr,
):
    """(gx, gh, gtheta of the step before)."""
    s, q_sigma, gh = adjoint_of_spike(gs, gv, h, theta, r, alpha, SOFT_RESET, SURROGATE, SOFT_SPIKE, DETACH_RESET)
    gx = c * gh
    if DETACH_ADAPT:
        gtheta = tl.zeros_like(gh)
    else:
        tanh_i = tanh_inhibition(x)  # computed again: kept, eight more registers
        through_theta = gtheta * (gamma * tl.fma(-tanh_i, tanh_i, 1.0))
        gx -= tl.where(x <= 0, through_theta, 0.0)
        gtheta -= q_sigma
        if SOFT_RESET:
            gtheta -= times(s, gv)
    return gx, gh, gtheta


@kernel
def llif_forward(
    x_ptr,  # [outer][T][inner]
    v0_ptr,  # [N] or None: zero state
    theta0_ptr,
    s_ptr,  # like x
    v_ptr,  # [N] or None: not wanted
    theta_ptr,
    v_seq_ptr,  # like x, or None
    checkpoints_ptr,  # [(T - 1)//K][2][N] or None
    tau,  # number, or tensor of one element or one a channel
    v_threshold,
    affine_ptr,  # [3][channels]: centre, scale, shift of the neuron's input; or None: it is x
    N,
    T,
    inner,
    channels,
    channel_stride,
    r,
    gamma,
    alpha,
    SOFT_RESET: tl.constexpr,
    LINEAR_DECAY: tl.constexpr,
    DECAY_INPUT: tl.constexpr,
    SURROGATE: tl.constexpr,
    SOFT_SPIKE: tl.constexpr,
    PER_CHANNEL: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    m = threads(BLOCK, WIDE)
    live = tl.max_constancy(m < N, VECTOR)
    where = offsets(m, T, inner, FLAT)
    tau_0 = time_constant(tau, m, channels, channel_stride, PER_CHANNEL)
    threshold = constant(v_threshold, m, channels, channel_stride, PER_CHANNEL)
    affine = affine_of(affine_ptr, m, channels, channel_stride, PER_CHANNEL)
    _inverse_tau, a, c = decay_and_gain(tau_0, LINEAR_DECAY, DECAY_INPUT)
    v = load_or(v0_ptr, m, r, live, VECTOR)
    theta = load_or(theta0_ptr, m, threshold, live, VECTOR)
    for first in range(0, T, AHEAD):
        if checkpoints_ptr is not None:  # noqa: SIM102 (settled at compile time, the inner one at run time)
            if (first > 0) & (first % K == 0):
                saved = (first // K - 1).to(tl.int64) * 2 * N + m
                store(checkpoints_ptr, saved, v, live, VECTOR)
                store(checkpoints_ptr, saved + N, theta, live, VECTOR)
        x = load_input(x_ptr, where, first, T, inner, live, affine, AHEAD, VECTOR)
        for k in tl.static_range(AHEAD):
            t = first + k
            if t < T:
                xn = transformed(x[k], affine)
                h = charge(xn, v, a, c, r)
                s = fire(h - theta, alpha, SURROGATE, SOFT_SPIKE)
                v = reset(s, h, theta, r, SOFT_RESET)
                theta = tl.fma(gamma, tanh_inhibition(xn), theta)
                now = t.to(tl.int64) * inner
                store(s_ptr + now, where, s.to(tl.float32), live, VECTOR)
                if v_seq_ptr is not None:
                    store(v_seq_ptr + now, where, v, live, VECTOR)
    if v_ptr is not None:
        store(v_ptr, m, v, live, VECTOR)
    if theta_ptr is not None:
        store(theta_ptr, m, theta, live, VECTOR)


@kernel
def llif_backward(
    gs_ptr,  # [outer][T][inner]
    gv_ptr,  # [N], or None: zero
    gtheta_ptr,
    gv_seq_ptr,  # like gs, or None: zero
    x_ptr,
    v0_ptr,
    theta0_ptr,
    checkpoints_ptr,
    gx_ptr,  # like x
    gv0_ptr,  # [N], or None: not wanted
    gtheta0_ptr,
    partial_ptr,  # float64 [sums][slabs][columns], or None: for tau and v_threshold, for shift and scale
    tau,
    v_threshold,
    affine_ptr,
    N,
    T,
    inner,
    channels,
    channel_stride,
    rows,  # the neurons as [rows][columns], see ops.py
    columns,
    rows_per_slab,
    slabs,
    r,
    gamma,
    alpha,
    SOFT_RESET: tl.constexpr,
    LINEAR_DECAY: tl.constexpr,
    DECAY_INPUT: tl.constexpr,
    SURROGATE: tl.constexpr,
    SOFT_SPIKE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    DETACH_ADAPT: tl.constexpr,
    PER_CHANNEL: tl.constexpr,
    CONSTANTS: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    SUMS: tl.constexpr = partial_ptr is not None
    thread = threads(BLOCK, WIDE)
    column, first_row = slab_thread(thread, columns, rows_per_slab, SUMS)
    tau_0 = time_constant(tau, column, channels, channel_stride, PER_CHANNEL)
    threshold = constant(v_threshold, column, channels, channel_stride, PER_CHANNEL)
    affine = affine_of(affine_ptr, column, channels, channel_stride, PER_CHANNEL)
    inverse_tau, a, c = decay_and_gain(tau_0, LINEAR_DECAY, DECAY_INPUT)
    tau_sum = tl.zeros([BLOCK], tl.float64)
    theta_sum = tl.zeros([BLOCK], tl.float64)
    shift_sum = tl.zeros([BLOCK], tl.float64)
    scale_sum = tl.zeros([BLOCK], tl.float64)
    for row in range(rows_per_slab):
        m, live = slab_neuron(column, first_row + row, columns, rows, N, SUMS, 1)
        where = offsets(m, T, inner, FLAT)
        gv = load_or(gv_ptr, m, 0.0, live, 1)
        gtheta = load_or(gtheta_ptr, m, 0.0, live, 1)
        gtau = tl.zeros([BLOCK], tl.float32)
        gshift = tl.zeros([BLOCK], tl.float32)
        gscale = tl.zeros([BLOCK], tl.float32)
        now = ((T - 1) // K * K + K).to(tl.int64) * inner  # carried along: eight products would take 16 registers
        for first in range((T - 1) // K * K, -1, -K):
            x = load_input(x_ptr, where, first, T, inner, live, affine, K, 1)
            gs = load_steps(gs_ptr, where, first, T, inner, live, K, 1)
            v = load_or(v0_ptr, m, r, live & (first == 0), 1)
            theta = load_or(theta0_ptr, m, threshold, live & (first == 0), 1)
            if first > 0:
                saved = (first // K - 1).to(tl.int64) * 2 * N + m
                v = load(checkpoints_ptr, saved, live, 1)
                theta = load(checkpoints_ptr, saved + N, live, 1)

            v_first = v
            theta_before = ()
            h = ()
            for k in tl.static_range(K):
                theta_before = theta_before + (theta,)
                charged = v
                if first + k < T:
                    xn = transformed(x[k], affine)
                    charged = charge(xn, v, a, c, r)
                    s = fire(charged - theta, alpha, SURROGATE, SOFT_SPIKE)
                    v = reset(s, charged, theta, r, SOFT_RESET)
                    theta = tl.fma(gamma, tanh_inhibition(xn), theta)
                h = h + (charged,)

            for k in tl.static_range(K - 1, -1, -1):
                now -= inner
                if first + k < T:
                    if gv_seq_ptr is not None:
                        gv += load(gv_seq_ptr + now, where, live, 1)
                    xn = transformed(x[k], affine)
                    gx, gh, gtheta = llif_adjoint(
                        gs[k],
                        gv,
                        gtheta,
                        xn,
                        h[k],
                        theta_before[k],
                        c,
                        r,
                        gamma,
                        alpha,
                        SOFT_RESET,
                        SURROGATE,
                        SOFT_SPIKE,
                        DETACH_RESET,
                        DETACH_ADAPT,
                    )
                    store(gx_ptr + now, where, before_transform(gx, affine), live, 1)
                    if affine_ptr is not None:
                        gshift += gx
                        gscale += gx * x[k]
                    if CONSTANTS:
                        before = v_first
                        if k > 0:
                            s_before = fire(h[k - 1] - theta_before[k - 1], alpha, SURROGATE, SOFT_SPIKE)
                            before = reset(s_before, h[k - 1], theta_before[k - 1], r, SOFT_RESET)
                        slope = charge_slope(xn, before, a, inverse_tau, r, LINEAR_DECAY, DECAY_INPUT)
                        gtau += weighted(gh, slope)
                    gv = a * gh
        if gv0_ptr is not None:
            store(gv0_ptr, m, gv, live, 1)
        if gtheta0_ptr is not None:
            store(gtheta0_ptr, m, gtheta, live, 1)
        if CONSTANTS:
            tau_sum += tl.where(live, gtau, 0.0).to(tl.float64)
            if theta0_ptr is None:  # theta started at v_threshold
                theta_sum += tl.where(live, gtheta, 0.0).to(tl.float64)
        if affine_ptr is not None:
            shift_sum += tl.where(live, gshift, 0.0).to(tl.float64)
            scale_sum += tl.where(live, gscale, 0.0).to(tl.float64)
    if CONSTANTS:
        store_sum(partial_ptr, 0, thread, slabs * columns, tau_sum, 1)
        store_sum(partial_ptr, 1, thread, slabs * columns, theta_sum, 1)
    if affine_ptr is not None:
        store_sum(partial_ptr, 2 if CONSTANTS else 0, thread, slabs * columns, shift_sum, 1)
        store_sum(partial_ptr, 3 if CONSTANTS else 1, thread, slabs * columns, scale_sum, 1)
