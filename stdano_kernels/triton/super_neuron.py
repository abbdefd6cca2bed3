"""The super neuron's passes (eq. 10): LIF, LLIF and SLIF, those that are present, over one input.

encode: from the zero state of each; bit k of the code of an element: neuron k fired; counts of the bits
decode: y = table_0 + sum over k of (fired_k ? table_(1+k) : 0)
sums:   sum of grad; sum of grad over the elements at which neuron k fired

gs_k = a_k*grad + (fired_k ? fired gradient : silent gradient), which is BatchNorm's derivative
gx   = sum over k of neuron k's gx for gs_k, see ``lif.py``, ``llif.py`` and ``slif.py``
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import (
    AHEAD,
    K,
    at,
    kernel,
    load_steps,
    offsets,
    slab_neuron,
    slab_thread,
    store,
    store_sum,
    table_entry,
    threads,
)
from .llif import llif_adjoint, tanh_inhibition
from .math import tanh
from .slif import shortened, slif_adjoint, state_after
from .steps import adjoint_of_spike, charge, decay_and_gain, fire, reset


@triton.jit
def load_codes(pointer, where, first, T, inner, mask, STEPS: tl.constexpr, VECTOR: tl.constexpr):
    """load_steps of codes, as integers."""
    codes = ()
    row = first.to(tl.int64) * inner
    for k in tl.static_range(STEPS):
        codes = codes + (tl.load(at(pointer + row, where, VECTOR), mask & (first + k < T), 0).to(tl.int32),)
        row += inner
    return codes


@triton.jit
def zero_state(r, slif_r, threshold, BLOCK: tl.constexpr):
    """v of LIF; v and theta of LLIF; v and p of SLIF."""
    zero = tl.zeros([BLOCK], tl.float32)
    return (zero + r, zero + r, zero + threshold, zero + slif_r, zero)


@triton.jit
def step(
    x,
    state,
    constants,
    LIF: tl.constexpr,
    LLIF: tl.constexpr,
    SLIF: tl.constexpr,
    SOFT_RESET: tl.constexpr,
    SLIF_SOFT_RESET: tl.constexpr,
    LINEAR_DECAY: tl.constexpr,
    DECAY_INPUT: tl.constexpr,
):
    """(code, state) of a time step of all neurons that are present."""
    v_lif, v_llif, theta, v_slif, p = state
    tau_0, threshold, a, c, r, slif_r, gamma, beta, tau_min = constants
    code = tl.zeros_like(x).to(tl.int32)
    if LIF:
        h = charge(x, v_lif, a, c, r)
        s = fire(h - threshold, 0.0, "", False)
        v_lif = reset(s, h, threshold, r, SOFT_RESET)
        code = s.to(tl.int32)
    if LLIF:
        h = charge(x, v_llif, a, c, r)
        s = fire(h - theta, 0.0, "", False)
        v_llif = reset(s, h, theta, r, SOFT_RESET)
        theta = tl.fma(gamma, tanh_inhibition(x), theta)
        code |= s.to(tl.int32) << 1
    if SLIF:
        _free, _inverse_tau, a_t, c_t = shortened(tanh(p), tau_0, beta, tau_min, LINEAR_DECAY, DECAY_INPUT)
        h = charge(x, v_slif, a_t, c_t, slif_r)
        v_slif, p = state_after(h, threshold, slif_r, 0.0, SLIF_SOFT_RESET, "", False)
        code |= fire(h - threshold, 0.0, "", False).to(tl.int32) << 2
    return code, (v_lif, v_llif, theta, v_slif, p)


@kernel
def super_neuron_encode(
    x_ptr,  # [outer][T][inner]
    codes_ptr,  # uint8, like x
    partial_ptr,  # float64 [3][slabs][columns]: counts
    tau,
    v_threshold,
    N,
    T,
    inner,
    rows,  # the neurons as [rows][columns], see launch.py
    columns,
    rows_per_slab,
    slabs,
    r,  # of LIF and LLIF
    slif_r,
    gamma,
    beta,
    tau_min,
    LIF: tl.constexpr,
    LLIF: tl.constexpr,
    SLIF: tl.constexpr,
    SOFT_RESET: tl.constexpr,
    SLIF_SOFT_RESET: tl.constexpr,
    LINEAR_DECAY: tl.constexpr,
    DECAY_INPUT: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    thread = threads(BLOCK, WIDE)
    column, first_row = slab_thread(thread, columns, rows_per_slab, True)
    _inverse_tau, a, c = decay_and_gain(tau, LINEAR_DECAY, DECAY_INPUT)
    constants = (tau, v_threshold, a, c, r, slif_r, gamma, beta, tau_min)
    lif_count = tl.zeros([BLOCK], tl.int32)
    llif_count = tl.zeros([BLOCK], tl.int32)
    slif_count = tl.zeros([BLOCK], tl.int32)
    for row in range(rows_per_slab):
        m, live = slab_neuron(column, first_row + row, columns, rows, N, True)
        live = tl.max_constancy(live, VECTOR)
        where = offsets(m, T, inner, FLAT)
        state = zero_state(r, slif_r, v_threshold, BLOCK)
        for first in range(0, T, AHEAD):
            x = load_steps(x_ptr, where, first, T, inner, live, AHEAD, VECTOR)
            for k in tl.static_range(AHEAD):
                t = first + k
                if t < T:
                    code, state = step(
                        x[k],
                        state,
                        constants,
                        LIF,
                        LLIF,
                        SLIF,
                        SOFT_RESET,
                        SLIF_SOFT_RESET,
                        LINEAR_DECAY,
                        DECAY_INPUT,
                    )
                    store(codes_ptr + t.to(tl.int64) * inner, where, code, live, VECTOR)
                    counted = tl.where(live, code, 0)
                    lif_count += counted & 1
                    llif_count += counted >> 1 & 1
                    slif_count += counted >> 2
    store_sum(partial_ptr, 0, thread, slabs * columns, lif_count)
    store_sum(partial_ptr, 1, thread, slabs * columns, llif_count)
    store_sum(partial_ptr, 2, thread, slabs * columns, slif_count)


@kernel
def super_neuron_decode(
    codes_ptr,  # uint8 [outer][T][inner]
    table_ptr,  # [4][channels]: what is always there, LIF's part, LLIF's, SLIF's
    y_ptr,
    N,
    T,
    inner,
    channels,
    channel_stride,
    PER_CHANNEL: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    m = threads(BLOCK, WIDE)
    live = tl.max_constancy(m < N, VECTOR)
    where = offsets(m, T, inner, FLAT)
    base = table_entry(table_ptr, 0, m, channels, channel_stride, PER_CHANNEL)
    lif = table_entry(table_ptr, 1, m, channels, channel_stride, PER_CHANNEL)
    llif = table_entry(table_ptr, 2, m, channels, channel_stride, PER_CHANNEL)
    slif = table_entry(table_ptr, 3, m, channels, channel_stride, PER_CHANNEL)
    for first in range(0, T, AHEAD):
        codes = load_codes(codes_ptr, where, first, T, inner, live, AHEAD, VECTOR)
        for k in tl.static_range(AHEAD):
            t = first + k
            y = base + tl.where((codes[k] & 1) != 0, lif, 0.0)
            y += tl.where((codes[k] & 2) != 0, llif, 0.0)
            y += tl.where((codes[k] & 4) != 0, slif, 0.0)
            store(y_ptr + t.to(tl.int64) * inner, where, y, live & (t < T), VECTOR)


@kernel
def super_neuron_sums(
    codes_ptr,  # uint8 [outer][T][inner]
    grad_ptr,
    partial_ptr,  # float64 [4][slabs][columns]: all of it, where LIF fired, LLIF, SLIF
    N,
    T,
    inner,
    rows,
    columns,
    rows_per_slab,
    slabs,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    thread = threads(BLOCK, WIDE)
    column, first_row = slab_thread(thread, columns, rows_per_slab, True)
    total = tl.zeros([BLOCK], tl.float64)
    lif = tl.zeros([BLOCK], tl.float64)
    llif = tl.zeros([BLOCK], tl.float64)
    slif = tl.zeros([BLOCK], tl.float64)
    for row in range(rows_per_slab):
        m, live = slab_neuron(column, first_row + row, columns, rows, N, True)
        live = tl.max_constancy(live, VECTOR)
        where = offsets(m, T, inner, FLAT)
        row_total = tl.zeros([BLOCK], tl.float32)
        row_lif = tl.zeros([BLOCK], tl.float32)
        row_llif = tl.zeros([BLOCK], tl.float32)
        row_slif = tl.zeros([BLOCK], tl.float32)
        for first in range(0, T, AHEAD):
            codes = load_codes(codes_ptr, where, first, T, inner, live, AHEAD, VECTOR)
            grads = load_steps(grad_ptr, where, first, T, inner, live, AHEAD, VECTOR)
            for k in tl.static_range(AHEAD):
                grad = tl.where(live & (first + k < T), grads[k], 0.0)
                row_total += grad
                row_lif += tl.where((codes[k] & 1) != 0, grad, 0.0)
                row_llif += tl.where((codes[k] & 2) != 0, grad, 0.0)
                row_slif += tl.where((codes[k] & 4) != 0, grad, 0.0)
        total += row_total.to(tl.float64)
        lif += row_lif.to(tl.float64)
        llif += row_llif.to(tl.float64)
        slif += row_slif.to(tl.float64)
    store_sum(partial_ptr, 0, thread, slabs * columns, total)
    store_sum(partial_ptr, 1, thread, slabs * columns, lif)
    store_sum(partial_ptr, 2, thread, slabs * columns, llif)
    store_sum(partial_ptr, 3, thread, slabs * columns, slif)


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
