"""SLIF (eqs. 8 and 9): LIF, see ``lif.py``, whose time constant the residual potential p of the last spike shortens::

tau = max(tau_min, tau_0 - beta*tanh(p)), which sets a and c of the step;   p' = s*u

q += gp'*u;   gh += gp'*s;   gtau = gh*dh/dtau where tau is not at tau_min
gp = -beta*(1 - tanh(p)^2)*gtau;   gtau_0 += gtau
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
    before_transform,
    charge,
    charge_slope,
    decay_and_gain,
    fire,
    past_reset,
    reset,
    spike_gradient,
    times,
    transformed,
    weighted,
)
from .surrogates import derivative


@triton.jit
def shortened(tanh_p, tau_0, beta, tau_min, LINEAR_DECAY: tl.constexpr, DECAY_INPUT: tl.constexpr):
    """(whether tau is above tau_min, 1/tau, a, c) of a step."""
    wanted = tl.fma(-beta, tanh_p, tau_0)
    free = wanted >= tau_min
    inverse_tau, a, c = decay_and_gain(tl.where(free, wanted, tau_min), LINEAR_DECAY, DECAY_INPUT)
    return free, inverse_tau, a, c


@triton.jit
def state_after(h, theta, r, alpha, SOFT_RESET: tl.constexpr, SURROGATE: tl.constexpr, SOFT_SPIKE: tl.constexpr):
    """(v, p) of the step that charged to h."""
    u = h - theta
    s = fire(u, alpha, SURROGATE, SOFT_SPIKE)
    return reset(s, h, theta, r, SOFT_RESET), times(s, u)


@triton.jit
def slif_adjoint(
    gs,
    gv,
    gp,
    x,
    h,
    before,  # v and p of the step before
    p_before,
    tau_0,
    theta,
    r,
    beta,
    tau_min,
    alpha,
    SOFT_RESET: tl.constexpr,
    LINEAR_DECAY: tl.constexpr,
    DECAY_INPUT: tl.constexpr,
    SURROGATE: tl.constexpr,
    SOFT_SPIKE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    DETACH_ADAPT: tl.constexpr,
):
    """gx, gv and gp of the step before, and what the step adds to gtau_0 and gtheta."""
    u = h - theta
    s = fire(u, alpha, SURROGATE, SOFT_SPIKE)
    sigma = derivative(u, alpha, SURROGATE)
    tanh_p = tanh(p_before)
    free, inverse_tau, a, c = shortened(tanh_p, tau_0, beta, tau_min, LINEAR_DECAY, DECAY_INPUT)
    if DETACH_ADAPT:
        gp = tl.zeros_like(gp)
    through_spike = tl.fma(gp, u, spike_gradient(gs, gv, h, theta, r, SOFT_RESET, DETACH_RESET))
    gu = weighted(sigma, through_spike) + times(s, gp)
    gh = past_reset(s, gv, SOFT_RESET) + gu
    slope = charge_slope(x, before, a, inverse_tau, r, LINEAR_DECAY, DECAY_INPUT)
    gtau = tl.where(free, weighted(gh, slope), 0.0)
    gtheta = -gu - times(s, gv) if SOFT_RESET else -gu
    if not DETACH_ADAPT:
        gp = weighted(-beta * tl.fma(-tanh_p, tanh_p, 1.0), gtau)
    return c * gh, a * gh, gp, gtau, gtheta


@kernel
def slif_forward(
    x_ptr,  # [outer][T][inner]
    v0_ptr,  # [N] or None: zero state
    p0_ptr,
    s_ptr,  # like x
    v_ptr,  # [N] or None: not wanted
    p_ptr,
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
    beta,
    tau_min,
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
    theta = constant(v_threshold, m, channels, channel_stride, PER_CHANNEL)
    affine = affine_of(affine_ptr, m, channels, channel_stride, PER_CHANNEL)
    v = load_or(v0_ptr, m, r, live, VECTOR)
    p = load_or(p0_ptr, m, 0.0, live, VECTOR)
    for first in range(0, T, AHEAD):
        if checkpoints_ptr is not None:  # noqa: SIM102 (settled at compile time, the inner one at run time)
            if (first > 0) & (first % K == 0):
                saved = (first // K - 1).to(tl.int64) * 2 * N + m
                store(checkpoints_ptr, saved, v, live, VECTOR)
                store(checkpoints_ptr, saved + N, p, live, VECTOR)
        x = load_input(x_ptr, where, first, T, inner, live, affine, AHEAD, VECTOR)
        for k in tl.static_range(AHEAD):
            t = first + k
            if t < T:
                _free, _inverse_tau, a, c = shortened(tanh(p), tau_0, beta, tau_min, LINEAR_DECAY, DECAY_INPUT)
                xn = transformed(x[k], affine)
                h = charge(xn, v, a, c, r)
                u = h - theta
                s = fire(u, alpha, SURROGATE, SOFT_SPIKE)
                v = reset(s, h, theta, r, SOFT_RESET)
                p = times(s, u)
                now = t.to(tl.int64) * inner
                store(s_ptr + now, where, s.to(tl.float32), live, VECTOR)
                if v_seq_ptr is not None:
                    store(v_seq_ptr + now, where, v, live, VECTOR)
    if v_ptr is not None:
        store(v_ptr, m, v, live, VECTOR)
    if p_ptr is not None:
        store(p_ptr, m, p, live, VECTOR)


@kernel
def slif_backward(
    gs_ptr,  # [outer][T][inner]
    gv_ptr,  # [N], or None: zero
    gp_ptr,
    gv_seq_ptr,  # like gs, or None: zero
    x_ptr,
    v0_ptr,
    p0_ptr,
    checkpoints_ptr,
    gx_ptr,  # like x
    gv0_ptr,  # [N], or None: not wanted
    gp0_ptr,
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
    beta,
    tau_min,
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
    theta = constant(v_threshold, column, channels, channel_stride, PER_CHANNEL)
    affine = affine_of(affine_ptr, column, channels, channel_stride, PER_CHANNEL)
    tau_sum = tl.zeros([BLOCK], tl.float64)
    theta_sum = tl.zeros([BLOCK], tl.float64)
    shift_sum = tl.zeros([BLOCK], tl.float64)
    scale_sum = tl.zeros([BLOCK], tl.float64)
    for row in range(rows_per_slab):
        m, live = slab_neuron(column, first_row + row, columns, rows, N, SUMS, 1)
        where = offsets(m, T, inner, FLAT)
        gv = load_or(gv_ptr, m, 0.0, live, 1)
        gp = load_or(gp_ptr, m, 0.0, live, 1)
        gtau_0 = tl.zeros([BLOCK], tl.float32)
        gtheta = tl.zeros([BLOCK], tl.float32)
        gshift = tl.zeros([BLOCK], tl.float32)
        gscale = tl.zeros([BLOCK], tl.float32)
        now = ((T - 1) // K * K + K).to(tl.int64) * inner  # carried along: eight products would take 16 registers
        for first in range((T - 1) // K * K, -1, -K):
            x = load_input(x_ptr, where, first, T, inner, live, affine, K, 1)
            gs = load_steps(gs_ptr, where, first, T, inner, live, K, 1)
            v = load_or(v0_ptr, m, r, live & (first == 0), 1)
            p = load_or(p0_ptr, m, 0.0, live & (first == 0), 1)
            if first > 0:
                saved = (first // K - 1).to(tl.int64) * 2 * N + m
                v = load(checkpoints_ptr, saved, live, 1)
                p = load(checkpoints_ptr, saved + N, live, 1)

            v_first = v
            p_first = p
            h = ()
            for k in tl.static_range(K):
                charged = v
                if first + k < T:
                    _free, _inverse_tau, a, c = shortened(tanh(p), tau_0, beta, tau_min, LINEAR_DECAY, DECAY_INPUT)
                    xn = transformed(x[k], affine)
                    charged = charge(xn, v, a, c, r)
                    u = charged - theta
                    s = fire(u, alpha, SURROGATE, SOFT_SPIKE)
                    v = reset(s, charged, theta, r, SOFT_RESET)
                    p = times(s, u)
                h = h + (charged,)

            for k in tl.static_range(K - 1, -1, -1):
                now -= inner
                if first + k < T:
                    if gv_seq_ptr is not None:
                        gv += load(gv_seq_ptr + now, where, live, 1)
                    before = v_first
                    p_before = p_first
                    if k > 0:
                        before, p_before = state_after(h[k - 1], theta, r, alpha, SOFT_RESET, SURROGATE, SOFT_SPIKE)
                    gx, gv, gp, gtau, gtheta_k = slif_adjoint(
                        gs[k],
                        gv,
                        gp,
                        transformed(x[k], affine),
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
                        SOFT_SPIKE,
                        DETACH_RESET,
                        DETACH_ADAPT,
                    )
                    store(gx_ptr + now, where, before_transform(gx, affine), live, 1)
                    if affine_ptr is not None:
                        gshift += gx
                        gscale += gx * x[k]
                    if CONSTANTS:
                        gtau_0 += gtau
                        gtheta += gtheta_k
        if gv0_ptr is not None:
            store(gv0_ptr, m, gv, live, 1)
        if gp0_ptr is not None:
            store(gp0_ptr, m, gp, live, 1)
        if CONSTANTS:
            tau_sum += tl.where(live, gtau_0, 0.0).to(tl.float64)
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
