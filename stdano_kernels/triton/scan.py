"""One forward and one backward kernel for every neuron.

A neuron is functions of one step that ``define/triton.py`` prints; a state, and whatever else there are several of, is
a tuple::

    derive(constants)                           -> derived                       what depends on constants alone
    rest(constants)                             -> state                         in front of the first step
    step(x, state, derived, alpha)              -> spike, state
    adjoint(gs, grads, x, state, derived, alpha) -> gx, grads, gradients of derived    state: before the step
    finish(constants, sums)                     -> gradients of constants        from those of derived
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import (
    AHEAD,
    K,
    affine_of,
    kernel,
    load,
    load_input,
    load_steps,
    offsets,
    slab_neuron,
    slab_thread,
    store,
    store_sum,
    threads,
)
from .math import spread

NUMBER, CHANNEL, NEURON = (tl.constexpr(k) for k in range(3))  # what a constant has an element for


@triton.jit
def constants_of(given, m, channels, channel_stride, live, KINDS: tl.constexpr, VECTOR: tl.constexpr):
    """The constants of neurons m: numbers, or their entries in tensors."""
    out = ()
    for j in tl.static_range(len(KINDS)):
        if KINDS[j] == NUMBER:
            out = out + (given[j],)
        elif KINDS[j] == NEURON:
            out = out + (load(given[j], m, live, VECTOR),)
        elif KINDS[j] == CHANNEL:
            out = out + (tl.load(given[j] + m // channel_stride % channels),)
    return out


@triton.jit
def first_state(pointers, m, at_rest, live, STATES: tl.constexpr, VECTOR: tl.constexpr):
    state = ()
    for i in tl.static_range(len(at_rest)):
        if STATES:
            state = state + (load(pointers[i], m, live, VECTOR),)
        else:
            state = state + (spread(at_rest[i], m),)
    return state


@triton.jit
def load_checkpoint(pointer, chunk, m, N, live, state):
    """[chunks][states][N]; as many as there are in ``state``."""
    where = (chunk - 1).to(tl.int64) * len(state) * N + m
    out = ()
    for _ in tl.static_range(len(state)):
        out = out + (load(pointer, where, live, 1),)
        where += N
    return out


@triton.jit
def store_checkpoint(pointer, chunk, m, N, state, live, VECTOR: tl.constexpr):
    where = (chunk - 1).to(tl.int64) * len(state) * N + m
    for i in tl.static_range(len(state)):
        store(pointer, where, state[i], live, VECTOR)
        where += N


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
def plus(a, b):
    out = ()
    for i in tl.static_range(len(a)):
        out = out + (a[i] + b[i],)
    return out


@triton.jit
def with_added(values, which: tl.constexpr, more):
    out = ()
    for i in tl.static_range(len(values)):
        if i == which:
            out = out + (values[i] + more,)
        else:
            out = out + (values[i],)
    return out


@triton.jit
def zeros(COUNT: tl.constexpr, like, dtype: tl.constexpr):
    out = ()
    for _ in tl.static_range(COUNT):
        out = out + (tl.full(like.shape, 0.0, dtype),)
    return out


@triton.jit
def of_kind(values, KINDS: tl.constexpr, KIND: tl.constexpr):
    out = ()
    for j in tl.static_range(len(KINDS)):
        if KINDS[j] == KIND:
            out = out + (values[j],)
    return out


@kernel
def scan_forward(
    x_ptr,  # [outer][T][inner]
    state_ptrs,  # of each state [N]; empty: at rest
    spikes_ptr,  # like x
    final_ptrs,  # of each state [N], or empty
    sequence_ptrs,  # like x, of the states number SEQUENCES
    checkpoints_ptr,  # [(T - 1)//K][states][N] or None
    constants,  # numbers and tensors, by KINDS
    affine_ptr,  # [3][channels]: centre, scale, shift of the neuron's input; or None: it is x
    alpha,
    N,
    T,
    inner,
    channels,
    channel_stride,
    DERIVE: tl.constexpr,
    REST: tl.constexpr,
    STEP: tl.constexpr,
    KINDS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    STATES: tl.constexpr,
    FINAL: tl.constexpr,
    GUARDED: tl.constexpr,  # T is no multiple of AHEAD
    PER_CHANNEL: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    m = threads(BLOCK, WIDE)
    live = tl.max_constancy(m < N, VECTOR)
    where = offsets(m, T, inner, FLAT)
    c = constants_of(constants, m, channels, channel_stride, live, KINDS, VECTOR)
    derived = DERIVE(c)
    affine = affine_of(affine_ptr, m, channels, channel_stride, PER_CHANNEL)
    state = first_state(state_ptrs, m, REST(c), live, STATES, VECTOR)
    for first in range(0, T, AHEAD):
        if checkpoints_ptr is not None:  # noqa: SIM102 (settled at compile time, the inner one at run time)
            if (first > 0) & (first % K == 0):
                store_checkpoint(checkpoints_ptr, first // K, m, N, state, live, VECTOR)
        x = load_input(x_ptr, where, first, T, inner, live, affine, AHEAD, VECTOR)
        for k in tl.static_range(AHEAD):
            t = first + k
            there = t < T if GUARDED else True
            if there:
                spike, state = STEP(transformed(x[k], affine), state, derived, alpha)
                now = t.to(tl.int64) * inner
                store(spikes_ptr + now, where, spike.to(tl.float32), live, VECTOR)
                for q in tl.static_range(len(SEQUENCES)):
                    store(sequence_ptrs[q] + now, where, state[SEQUENCES[q]], live, VECTOR)
    if FINAL:
        for i in tl.static_range(len(state)):
            store(final_ptrs[i], m, state[i], live, VECTOR)


@triton.jit
def adjoint_of_chunk(
    steps,  # of the STEPS that there are
    x,  # STEPS of the neuron's input, as are gs and each of `more`
    gs,
    more,  # gradients of the states number SEQUENCES
    state,  # before the first step
    grads,  # behind the last
    sums,
    of_affine,
    affine,
    derived,
    alpha,
    STEP: tl.constexpr,
    ADJOINT: tl.constexpr,
    SEQUENCES: tl.constexpr,
    STEPS: tl.constexpr,
    GUARDED: tl.constexpr,  # whether there may be fewer than STEPS
):
    """The gradients of the neuron's input, grads in front of the first step, and sums with this chunk's."""
    before = (state,)
    for k in tl.static_range(STEPS - 1):
        there = k + 1 < steps if GUARDED else True
        if there:
            _s, state = STEP(transformed(x[k], affine), state, derived, alpha)
        before = before + (state,)
    gx = ()
    for k in tl.static_range(STEPS - 1, -1, -1):
        gx_k = gs[k]
        there = k < steps if GUARDED else True
        if there:
            for q in tl.static_range(len(SEQUENCES)):
                grads = with_added(grads, SEQUENCES[q], more[q][k])
            xn = transformed(x[k], affine)
            gx_k, grads, parts = ADJOINT(gs[k], grads, xn, before[k], derived, alpha)
            sums = plus(sums, parts)
            of_affine = plus(of_affine, (gx_k, gx_k * x[k]))
        gx = (gx_k,) + gx
    return gx, grads, sums, of_affine


@kernel
def scan_backward(
    gs_ptr,  # [outer][T][inner]
    grad_ptrs,  # [N] each, of the final states number GRADS
    grad_sequence_ptrs,  # like gs, of the states number SEQUENCES
    x_ptr,
    state_ptrs,
    checkpoints_ptr,
    gx_ptr,  # like x
    initial_ptrs,  # [N] each, of all states or of none
    grad_constant_ptrs,  # [N] each, of the constants that are tensors with an element for each neuron
    partial_ptr,  # float64 [sums][slabs][columns], or None: of the other tensors, then of shift and scale
    constants,
    affine_ptr,
    alpha,
    N,
    T,
    inner,
    channels,
    channel_stride,
    rows,  # the neurons as [rows][columns], see launch.py
    columns,
    rows_per_slab,
    slabs,
    DERIVE: tl.constexpr,
    REST: tl.constexpr,
    STEP: tl.constexpr,
    ADJOINT: tl.constexpr,
    FINISH: tl.constexpr,
    KINDS: tl.constexpr,
    LEARNED: tl.constexpr,  # whether a constant is a tensor
    TOTALS: tl.constexpr,  # sums that are taken
    RESTS: tl.constexpr,  # of each state the number of the constant at which it rests, or -1
    GRADS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    STATES: tl.constexpr,
    STEPS: tl.constexpr,
    GUARDED: tl.constexpr,
    PER_CHANNEL: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    SUMS: tl.constexpr = TOTALS > 0
    PER_NEURON: tl.constexpr = len(grad_constant_ptrs) > 0
    thread = threads(BLOCK, WIDE)
    column, first_row = slab_thread(thread, columns, rows_per_slab, SUMS)
    of_column = constants_of(constants, column, channels, channel_stride, column < N, KINDS, 1)
    affine = affine_of(affine_ptr, column, channels, channel_stride, PER_CHANNEL)
    totals = zeros(TOTALS, column, tl.float64)
    for row in range(rows_per_slab if SUMS else 1):
        m, live = slab_neuron(column, first_row + row, columns, rows, N, SUMS, 1)
        where = offsets(m, T, inner, FLAT)
        if PER_NEURON:
            c = constants_of(constants, m, channels, channel_stride, live, KINDS, 1)
        else:
            c = of_column
        derived = DERIVE(c)
        at_rest = REST(c)
        grads = zeros(len(at_rest), m, tl.float32)
        for i in tl.static_range(len(GRADS)):
            grads = with_added(grads, GRADS[i], load(grad_ptrs[i], m, live, 1))
        sums = zeros(len(derived) if LEARNED else 0, m, tl.float32)
        of_affine = zeros(2 if len(affine) > 0 else 0, m, tl.float32)
        for first in range((T - 1) // STEPS * STEPS, -1, -STEPS):
            x = load_input(x_ptr, where, first, T, inner, live, affine, STEPS, 1)
            gs = load_steps(gs_ptr, where, first, T, inner, live, STEPS, 1)
            more = ()
            for q in tl.static_range(len(SEQUENCES)):
                more = more + (load_steps(grad_sequence_ptrs[q], where, first, T, inner, live, STEPS, 1),)
            state = first_state(state_ptrs, m, at_rest, live & (first == 0), STATES, 1)
            if first > 0:
                state = load_checkpoint(checkpoints_ptr, first // STEPS, m, N, live, state)
            gx, grads, sums, of_affine = adjoint_of_chunk(
                T - first,
                x,
                gs,
                more,
                state,
                grads,
                sums,
                of_affine,
                affine,
                derived,
                alpha,
                STEP,
                ADJOINT,
                SEQUENCES,
                STEPS,
                GUARDED,
            )
            now = first.to(tl.int64) * inner
            for k in tl.static_range(STEPS):
                there = first + k < T if GUARDED else True
                store(gx_ptr + now, where, before_transform(gx[k], affine), live & there, 1)
                now += inner
        for i in tl.static_range(len(initial_ptrs)):
            store(initial_ptrs[i], m, grads[i], live, 1)
        found = ()
        if LEARNED:
            own = FINISH(c, sums)
            if not STATES:
                for i in tl.static_range(len(RESTS)):
                    own = with_added(own, RESTS[i], grads[i])
            found = of_kind(own, KINDS, CHANNEL)
            of_neurons = of_kind(own, KINDS, NEURON)
            for i in tl.static_range(len(of_neurons)):
                store(grad_constant_ptrs[i], m, spread(of_neurons[i], m), live, 1)
        found = found + of_affine
        for i in tl.static_range(len(found)):
            totals = with_added(totals, i, tl.where(live, found[i], 0.0).to(tl.float64))
    for i in tl.static_range(len(totals)):
        store_sum(partial_ptr, i, thread, slabs * columns, totals[i], 1)
