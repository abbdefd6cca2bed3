"""The super neuron's passes (eq. 10): several neurons over one input, by the functions of each (see scan.py)::

encode:   from where each rests; bit k of the code of an element: neuron k fired; counts of the bits
decode:   y = table_0 + sum over k of (fired_k ? table_(1+k) : 0)
sums:     sum of grad; sum of grad over the elements at which neuron k fired
backward: gs_k = a_k*grad + (fired_k ? fired gradient : silent gradient), which is BatchNorm's derivative;
          gx = sum over k of neuron k's gx for gs_k

There are no checkpoints: what backward does not do at once begins with the state computed anew from the first step.
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
from .scan import adjoint_of_chunk
from .tuples import filled, plus, with_added, zeros


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
def table_column(table_ptr, m, channels, channel_stride, ROWS: tl.constexpr, PER_CHANNEL: tl.constexpr):
    """The neuron's entries in all rows of a table."""
    entries = ()
    for row in tl.static_range(ROWS):
        entries = entries + (table_entry(table_ptr, row, m, channels, channel_stride, PER_CHANNEL),)
    return entries


@triton.jit
def begin(constants, like, DERIVE: tl.constexpr, REST: tl.constexpr):
    """Of each neuron what depends on constants alone, and where it rests."""
    derived = ()
    states = ()
    for k in tl.static_range(len(DERIVE)):
        derived = derived + (DERIVE[k](constants[k]),)
        states = states + (filled(REST[k](constants[k]), like),)
    return derived, states


@triton.jit
def step_of_all(x, states, derived, STEP: tl.constexpr):
    """(code, states) of a time step."""
    code = tl.zeros(x.shape, tl.int32)
    after = ()
    for k in tl.static_range(len(STEP)):
        spike, state = STEP[k](x, states[k], derived[k], 0.0)
        code |= (spike != 0).to(tl.int32) << k
        after = after + (state,)
    return code, after


@kernel
def super_neuron_encode(
    x_ptr,  # [outer][T][inner]
    codes_ptr,  # uint8, like x
    partial_ptr,  # float64 [neurons][slabs][columns]: counts
    constants,  # numbers, of each neuron
    N,
    T,
    inner,
    rows,  # the neurons as [rows][columns], see launch.py
    columns,
    rows_per_slab,
    slabs,
    DERIVE: tl.constexpr,
    REST: tl.constexpr,
    STEP: tl.constexpr,
    STEPS: tl.constexpr,
    GUARDED: tl.constexpr,
    SINGLE: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    thread = threads(BLOCK, WIDE)
    column, first_row = slab_thread(thread, columns, rows_per_slab, True)
    derived, at_rest = begin(constants, thread, DERIVE, REST)
    counts = zeros(len(STEP), thread, tl.int32)
    for row in range(rows_per_slab):
        m, live = slab_neuron(column, first_row + row, columns, rows, N, True, VECTOR)
        where = offsets(m, T, inner, FLAT)
        states = at_rest
        for first in range(0, STEPS if SINGLE else T, STEPS):
            x = load_steps(x_ptr, where, first, T, inner, live, STEPS, VECTOR)
            for k in tl.static_range(STEPS):
                there = first + k < T if GUARDED else True
                if there:
                    code, states = step_of_all(x[k], states, derived, STEP)
                    store(codes_ptr + tl.cast(first + k, tl.int64) * inner, where, code, live, VECTOR)
                    counted = tl.where(live, code, 0)
                    for i in tl.static_range(len(STEP)):
                        counts = with_added(counts, i, counted >> i & 1)
    for i in tl.static_range(len(STEP)):
        store_sum(partial_ptr, i, thread, slabs * columns, counts[i], VECTOR)


@kernel
def super_neuron_decode(
    codes_ptr,  # uint8 [outer][T][inner]
    table_ptr,  # [1 + MEMBERS][channels]: what is always there, and each neuron's part
    y_ptr,
    N,
    T,
    inner,
    channels,
    channel_stride,
    MEMBERS: tl.constexpr,
    PER_CHANNEL: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    m = threads(BLOCK, WIDE)
    live = tl.max_constancy(m < N, VECTOR)
    where = offsets(m, T, inner, FLAT)
    table = table_column(table_ptr, m, channels, channel_stride, 1 + MEMBERS, PER_CHANNEL)
    for first in range(0, T, AHEAD):
        codes = load_codes(codes_ptr, where, first, T, inner, live, AHEAD, VECTOR)
        for k in tl.static_range(AHEAD):
            t = first + k
            y = table[0]
            for i in tl.static_range(MEMBERS):
                y += tl.where((codes[k] >> i & 1) != 0, table[1 + i], 0.0)
            store(y_ptr + t.to(tl.int64) * inner, where, y, live & (t < T), VECTOR)


@kernel
def super_neuron_sums(
    codes_ptr,  # uint8 [outer][T][inner]
    grad_ptr,
    partial_ptr,  # float64 [1 + MEMBERS][slabs][columns]: all of it, and where each neuron fired
    N,
    T,
    inner,
    rows,
    columns,
    rows_per_slab,
    slabs,
    MEMBERS: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    thread = threads(BLOCK, WIDE)
    column, first_row = slab_thread(thread, columns, rows_per_slab, True)
    totals = zeros(1 + MEMBERS, thread, tl.float64)
    for row in range(rows_per_slab):
        m, live = slab_neuron(column, first_row + row, columns, rows, N, True, VECTOR)
        where = offsets(m, T, inner, FLAT)
        of_row = zeros(1 + MEMBERS, thread, tl.float32)
        for first in range(0, T, AHEAD):
            codes = load_codes(codes_ptr, where, first, T, inner, live, AHEAD, VECTOR)
            grads = load_steps(grad_ptr, where, first, T, inner, live, AHEAD, VECTOR)
            for k in tl.static_range(AHEAD):
                grad = tl.where(live & (first + k < T), grads[k], 0.0)
                of_row = with_added(of_row, 0, grad)
                for i in tl.static_range(MEMBERS):
                    of_row = with_added(of_row, 1 + i, tl.where((codes[k] >> i & 1) != 0, grad, 0.0))
        for i in tl.static_range(1 + MEMBERS):
            totals = with_added(totals, i, of_row[i].to(tl.float64))
    for i in tl.static_range(1 + MEMBERS):
        store_sum(partial_ptr, i, thread, slabs * columns, totals[i], VECTOR)


@triton.jit
def gradients_of_spikes(member: tl.constexpr, grad, codes, table):
    """gs of a neuron at some steps; codes: a byte a step."""
    gs = ()
    for k in tl.static_range(len(grad)):
        fired = (codes[k // 4] >> (8 * (k % 4) + member) & 1) != 0
        gs = gs + (tl.fma(table[0], grad[k], tl.where(fired, table[2], table[1])),)
    return gs


@kernel
def super_neuron_backward(
    grad_ptr,  # [outer][T][inner]
    x_ptr,
    codes_ptr,  # uint8, like x
    table_ptr,  # [3*neurons][channels]: a, silent, fired of each
    gx_ptr,  # like x
    constants,
    alpha,
    N,
    T,
    inner,
    channels,
    channel_stride,
    DERIVE: tl.constexpr,
    REST: tl.constexpr,
    STEP: tl.constexpr,
    ADJOINT: tl.constexpr,
    LAST_ADJOINT: tl.constexpr,
    STEPS: tl.constexpr,
    GUARDED: tl.constexpr,
    SINGLE: tl.constexpr,
    PER_CHANNEL: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    m = threads(BLOCK, WIDE)
    live = m < N
    where = offsets(m, T, inner, FLAT)
    derived, at_rest = begin(constants, m, DERIVE, REST)
    grads = ()
    for i in tl.static_range(len(STEP)):
        grads = grads + (zeros(len(at_rest[i]), m, tl.float32),)
    for first in range(0 if SINGLE else (T - 1) // STEPS * STEPS, -1, -STEPS):
        states = at_rest
        if not SINGLE:
            for earlier in range(0, first, AHEAD):
                x = load_steps(x_ptr, where, earlier, T, inner, live, AHEAD, 1)
                for k in tl.static_range(AHEAD):
                    _code, states = step_of_all(x[k], states, derived, STEP)
        x = load_steps(x_ptr, where, first, T, inner, live, STEPS, 1)
        grad = load_steps(grad_ptr, where, first, T, inner, live, STEPS, 1)
        of_steps = load_codes(codes_ptr, where, first, T, inner, live, STEPS, 1)
        codes = zeros((STEPS + 3) // 4, m, tl.int32)
        for k in tl.static_range(STEPS):
            codes = with_added(codes, k // 4, of_steps[k] << (8 * (k % 4)))
        gx = ()
        before = ()
        for i in tl.static_range(len(STEP)):
            entries = ()
            for row in tl.static_range(3):
                entry = table_entry(table_ptr, 3 * i + row, m, channels, channel_stride, PER_CHANNEL)
                entries = entries + (entry,)
            own, grads_i, _of_derived, _of_affine = adjoint_of_chunk(
                T - first,
                x,
                gradients_of_spikes(i, grad, codes, entries),
                (),
                states[i],
                grads[i],
                (),
                (),
                (),
                derived[i],
                alpha,
                STEP[i],
                ADJOINT[i],
                LAST_ADJOINT[i],
                (),
                STEPS,
                GUARDED,
                SINGLE,
            )
            before = before + (grads_i,)
            if i == 0:
                gx = own
            else:
                gx = plus(gx, own)
        grads = before
        now = tl.cast(first, tl.int64) * inner
        for k in tl.static_range(STEPS):
            store(gx_ptr + now, where, gx[k], live & (first + k < T) if GUARDED else live, 1)
            now += inner
