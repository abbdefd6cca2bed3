"""Passes around channels, of which tables hold a number each. For BatchNorm before a neuron::

channel_sums:   sum of x, sum of x*x (in double)
channel_affine: out = grad + slope*(x - centre) + offset

For the super neuron (eq. 10), several neurons over one input, by the functions of each (see scan.py)::

encode:   from where each rests; bit k of the code of an element: neuron k fired; counts of the bits
decode:   y = table_0 + sum over k of (fired_k ? table_(1+k) : 0)
sums:     sum of grad; sum of grad over the elements at which neuron k fired
backward: gs_k = a_k*grad + (fired_k ? fired gradient : silent gradient), which is BatchNorm's derivative;
          gx = sum over k of neuron k's gx for gs_k

Backward computes the states anew from the first step, and keeps those at which its parts begin in memory of its own.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import AHEAD, entry_of, kernel, place_of, slab_of, step_is_there, threads
from .memory import checkpoint, load_state, load_steps, store_state, store_steps, store_sums, table_entries
from .scan import adjoint_of_chunk
from .tuples import filled, plus, with_added, zeros


@kernel
def channel_sums(x_ptr, N, T, inner, parts_ptr, columns, rows, slabs, HOW: tl.constexpr):
    """parts: float64 [2][slabs][columns]. There are few threads and little to compute, so the loads of several rows, as
    many bytes in every dtype, stand in front of their sums: the compiler may have them all under way."""
    TOGETHER: tl.constexpr = 64 // x_ptr.dtype.element_ty.primitive_bitwidth
    STEPS: tl.constexpr = HOW.steps
    thread, column, first_row = slab_of(columns, rows, HOW)
    total = tl.zeros(thread.shape, tl.float64)
    squares = tl.zeros(thread.shape, tl.float64)
    for row in range(0, rows, TOGETHER):
        places = ()
        for i in tl.static_range(TOGETHER):
            place = place_of((first_row + row + i) * columns + column, N, T, inner, HOW)
            places += ((place[0], place[1] & (row + i < rows), T, inner),)
        for first in range(0, STEPS if HOW.single else T, STEPS):
            x = ()
            for i in tl.static_range(TOGETHER):
                x += (load_steps(x_ptr, places[i], first, STEPS, HOW),)
            for i in tl.static_range(TOGETHER):
                for k in tl.static_range(STEPS):
                    value = tl.where(step_is_there(places[i], first + k, HOW), x[i][k], 0.0).to(tl.float64)
                    total += value
                    squares = tl.fma(value, value, squares)
    store_sums(parts_ptr, thread, slabs * columns, (total, squares), HOW)


@kernel
def channel_affine(grad_ptr, x_ptr, table_ptr, out_ptr, N, T, inner, channels, channel_stride, HOW: tl.constexpr):
    """table: [3][channels], centre, slope and offset."""
    m = threads(HOW)
    place = place_of(m, N, T, inner, HOW)
    centre, slope, offset = table_entries(table_ptr, entry_of(m, channels, channel_stride, HOW), 0, 3)
    for first in range(0, HOW.steps if HOW.single else T, HOW.steps):
        x = load_steps(x_ptr, place, first, HOW.steps, HOW)
        grad = load_steps(grad_ptr, place, first, HOW.steps, HOW)
        out = ()
        for k in tl.static_range(len(x)):
            out += (grad[k] + tl.fma(slope, x[k] - centre, offset),)
        store_steps(out_ptr, place, first, out, HOW)


@triton.jit
def fired(code, member: tl.constexpr):
    return (code >> member & 1) != 0


@triton.jit
def begin(constants, like, NEURONS: tl.constexpr):
    """Of each neuron what depends on constants alone, and where it rests."""
    derived = ()
    states = ()
    for k in tl.static_range(len(constants)):
        derived += (NEURONS.derive[k](constants[k]),)
        states += (filled(NEURONS.rest[k](constants[k]), like),)
    return derived, states


@triton.jit
def step_of_all(x, states, derived, NEURONS: tl.constexpr):
    """(code, states) of a time step."""
    code = tl.zeros(x.shape, tl.int32)
    after = ()
    for k in tl.static_range(len(states)):
        spike, state = NEURONS.step[k](x, states[k], derived[k], 0.0)
        code |= (spike != 0).to(tl.int32) << k
        after += (state,)
    return code, after


@kernel
def super_neuron_encode(
    x_ptr, codes_ptr, constants, N, T, inner, parts_ptr, columns, rows, slabs, NEURONS: tl.constexpr, HOW: tl.constexpr
):
    """codes: uint8, like x; constants: each neuron's numbers, and alpha; parts: counts, [neurons][slabs][columns]."""
    thread, column, first_row = slab_of(columns, rows, HOW)
    derived, at_rest = begin(constants, thread, NEURONS)
    counts = zeros(len(constants), thread, tl.int32)
    for row in range(rows):
        place = place_of((first_row + row) * columns + column, N, T, inner, HOW)
        states = at_rest
        for first in range(0, HOW.steps if HOW.single else T, HOW.steps):
            x = load_steps(x_ptr, place, first, HOW.steps, HOW)
            for k in tl.static_range(len(x)):
                there = first + k < T if HOW.guarded else True
                if there:
                    code, states = step_of_all(x[k], states, derived, NEURONS)
                    store_steps(codes_ptr, place, first + k, (code,), HOW)
                    counted = tl.where(place[1], code, 0)
                    for i in tl.static_range(len(counts)):
                        counts = with_added(counts, i, counted >> i & 1)
    store_sums(parts_ptr, thread, slabs * columns, counts, HOW)


@kernel
def super_neuron_decode(
    codes_ptr, table_ptr, y_ptr, N, T, inner, channels, channel_stride, MEMBERS: tl.constexpr, HOW: tl.constexpr
):
    """table: [1 + MEMBERS][channels], what is always there, and each neuron's part."""
    m = threads(HOW)
    place = place_of(m, N, T, inner, HOW)
    table = table_entries(table_ptr, entry_of(m, channels, channel_stride, HOW), 0, 1 + MEMBERS)
    for first in range(0, HOW.steps if HOW.single else T, HOW.steps):
        codes = load_steps(codes_ptr, place, first, HOW.steps, HOW)
        decoded = ()
        for k in tl.static_range(len(codes)):
            y = table[0]
            for i in tl.static_range(MEMBERS):
                y += tl.where(fired(codes[k], i), table[1 + i], 0.0)
            decoded += (y,)
        store_steps(y_ptr, place, first, decoded, HOW)


@kernel
def super_neuron_sums(
    codes_ptr,
    grad_ptr,
    ticket_ptr,
    N,
    T,
    inner,
    parts_ptr,
    columns,
    rows,
    slabs,
    MEMBERS: tl.constexpr,
    HOW: tl.constexpr,
):
    """parts: float64 [1 + MEMBERS][slabs][columns], of all of grad, and of it where each neuron fired. ticket: int32,
    set to 0 for the kernel behind this one."""
    if ticket_ptr is not None:  # noqa: SIM102, a kernel does not leave out the second half of an and
        if tl.program_id(0) == 0:
            tl.store(ticket_ptr, 0)
    thread, column, first_row = slab_of(columns, rows, HOW)
    totals = zeros(1 + MEMBERS, thread, tl.float64)
    for row in range(rows):
        place = place_of((first_row + row) * columns + column, N, T, inner, HOW)
        of_row = zeros(1 + MEMBERS, thread, tl.float32)
        for first in range(0, HOW.steps if HOW.single else T, HOW.steps):
            codes = load_steps(codes_ptr, place, first, HOW.steps, HOW)
            grads = load_steps(grad_ptr, place, first, HOW.steps, HOW)
            for k in tl.static_range(len(codes)):
                grad = tl.where(step_is_there(place, first + k, HOW), grads[k], 0.0)
                of_row = with_added(of_row, 0, grad)
                for i in tl.static_range(MEMBERS):
                    of_row = with_added(of_row, 1 + i, tl.where(fired(codes[k], i), grad, 0.0))
        totals = plus(totals, of_row)
    store_sums(parts_ptr, thread, slabs * columns, totals, HOW)


@triton.jit
def gradients_of_spikes(member: tl.constexpr, grad, codes, table):
    """gs of a neuron at some steps; codes: a byte a step."""
    gs = ()
    for k in tl.static_range(len(grad)):
        of_spike = tl.where(fired(codes[k // 4], 8 * (k % 4) + member), table[2], table[1])
        gs += (tl.fma(table[0], grad[k], of_spike),)
    return gs


@triton.jit
def store_states(pointers, chunk, m, N, live, states, NEURONS: tl.constexpr, HOW: tl.constexpr):
    """Those of all neurons before a chunk of steps; the thread that stores them is the one that loads them."""
    for i in tl.static_range(len(states)):
        store_state(checkpoint(pointers[i], chunk, N, NEURONS.states[i]), m, states[i], live, HOW)


@triton.jit
def load_states(pointers, chunk, m, N, live, NEURONS: tl.constexpr, HOW: tl.constexpr):
    states = ()
    for i in tl.static_range(len(pointers)):
        states += (load_state(checkpoint(pointers[i], chunk, N, NEURONS.states[i]), m, live, HOW),)
    return states


@kernel
def super_neuron_backward(
    grad_ptr,  # [outer][T][inner]
    x_ptr,
    codes_ptr,  # uint8, like x
    table_ptr,  # [3*neurons][channels]: a, silent, fired of each
    gx_ptr,  # like x
    checkpoint_ptrs,  # of each neuron [(T - 1)//K - 1][states][N], or none
    constants,
    N,
    T,
    inner,
    channels,
    channel_stride,
    NEURONS: tl.constexpr,
    HOW: tl.constexpr,
):
    STEPS: tl.constexpr = HOW.steps
    SINGLE: tl.constexpr = HOW.single
    m = threads(HOW)
    place = place_of(m, N, T, inner, HOW)
    live = place[1]
    derived, at_rest = begin(constants, m, NEURONS)
    states = at_rest
    last = 0
    if not SINGLE:
        last = (T - 1) // STEPS * STEPS
        for first in range(0, last, AHEAD):
            if (first > 0) & (first % STEPS == 0):
                store_states(checkpoint_ptrs, first // STEPS, m, N, live, states, NEURONS, HOW)
            x = load_steps(x_ptr, place, first, AHEAD, HOW)
            for k in tl.static_range(AHEAD):
                _code, states = step_of_all(x[k], states, derived, NEURONS)
    grads = ()
    for i in tl.static_range(len(constants)):
        grads += (zeros(NEURONS.states[i], m, tl.float32),)
    for first in range(last, -1, -STEPS):
        if not SINGLE:  # noqa: SIM102
            if first < last:
                states = at_rest
                if first > 0:
                    states = load_states(checkpoint_ptrs, first // STEPS, m, N, live, NEURONS, HOW)
        x = load_steps(x_ptr, place, first, STEPS, HOW)
        grad = load_steps(grad_ptr, place, first, STEPS, HOW)
        of_steps = load_steps(codes_ptr, place, first, STEPS, HOW)
        codes = zeros((STEPS + 3) // 4, m, tl.int32)
        for k in tl.static_range(STEPS):
            codes = with_added(codes, k // 4, of_steps[k] << (8 * (k % 4)))
        gx = ()
        before = ()
        for i in tl.static_range(len(constants)):
            entry = entry_of(m, channels, channel_stride, HOW)  # each time anew: to keep it takes more registers
            gs = gradients_of_spikes(i, grad, codes, table_entries(table_ptr, entry, 3 * i, 3))
            alpha = constants[i][-1]
            own, of_state, _sums = adjoint_of_chunk(
                T - first, x, gs, (), states[i], grads[i], ((), ()), (), derived[i], alpha, NEURONS, i, (), SINGLE, HOW
            )
            before += (of_state,)
            gx = own if i == 0 else plus(gx, own)
        grads = before
        store_steps(gx_ptr, place, first, gx, HOW)
