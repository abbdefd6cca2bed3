"""The super neuron's passes (eq. 10): LIF, LLIF and SLIF, those that are present, over one input::

encode: from the zero state of each; bit k of the code of an element: neuron k fired; counts of the bits
decode: y = table_0 + sum over k of (fired_k ? table_(1+k) : 0)
sums:   sum of grad; sum of grad over the elements at which neuron k fired

Backward: ``super_backward.py``.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import (
    AHEAD,
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
from .llif import tanh_inhibition
from .math import tanh
from .slif import shortened, state_after
from .steps import charge, decay_and_gain, fire, reset


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
        m, live = slab_neuron(column, first_row + row, columns, rows, N, True, VECTOR)
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
    store_sum(partial_ptr, 0, thread, slabs * columns, lif_count, VECTOR)
    store_sum(partial_ptr, 1, thread, slabs * columns, llif_count, VECTOR)
    store_sum(partial_ptr, 2, thread, slabs * columns, slif_count, VECTOR)


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
        m, live = slab_neuron(column, first_row + row, columns, rows, N, True, VECTOR)
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
    store_sum(partial_ptr, 0, thread, slabs * columns, total, VECTOR)
    store_sum(partial_ptr, 1, thread, slabs * columns, lif, VECTOR)
    store_sum(partial_ptr, 2, thread, slabs * columns, llif, VECTOR)
    store_sum(partial_ptr, 3, thread, slabs * columns, slif, VECTOR)
