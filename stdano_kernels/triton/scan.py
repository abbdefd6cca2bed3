"""One forward and one backward kernel for every neuron.

A neuron is functions of one step, which ``define/triton.py`` prints. States, constants, gradients are tuples::

    derive(constants)                                -> derived           what depends on constants alone
    rest(constants)                                  -> state             where a sequence begins
    step(x, state, derived, alpha)                   -> spike, state
    adjoint(gs, grads, x, state, derived, alpha)     -> gx, grads, those of derived     state: before the step
    last_adjoint(gs, x, state, derived, alpha)       -> the same where no gradient comes from behind
    finish(constants, gradients of derived)          -> those of constants

STEPS time steps are loaded before the first is computed, and backward they are computed in registers. GUARDED: there
may be fewer; SINGLE: there are exactly these. What is not there is an empty tuple, and costs nothing. For each kind and
alignment of what is in a tuple Triton compiles anew; what can stand outside does.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import (
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
from .tuples import (
    CHANNEL,
    NEURON,
    constants_of,
    filled,
    load_checkpoint,
    load_state,
    of_kind,
    plus,
    store_checkpoint,
    store_state,
    with_added,
    zeros,
)


@triton.jit
def transformed(x, affine):
    """The neuron's input: x, or scale*x + shift where x is what load_input left of it."""
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


@kernel
def scan_forward(
    x_ptr,  # [outer][T][inner]
    state_ptrs,  # [N] of each state; none: at rest
    spikes_ptr,  # like x
    final_ptrs,  # [N] of each state, or none
    sequence_ptrs,  # like x, of the states number SEQUENCES
    checkpoints_ptr,  # [(T - 1)//K][states][N] or None
    constants,  # a number, or a tensor of one a channel or one a neuron, each as KINDS says
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
    STEPS: tl.constexpr,
    GUARDED: tl.constexpr,
    SINGLE: tl.constexpr,
    PER_CHANNEL: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    m = threads(BLOCK, WIDE)
    live = tl.max_constancy(m < N, VECTOR)
    where = offsets(m, T, inner, FLAT)
    own = constants_of(constants, m, channels, channel_stride, live, KINDS, PER_CHANNEL, VECTOR)
    derived = DERIVE(own)
    affine = affine_of(affine_ptr, m, channels, channel_stride, PER_CHANNEL)
    if len(state_ptrs) > 0:
        state = load_state(state_ptrs, m, live, VECTOR)
    else:
        state = filled(REST(own), m)
    for first in range(0, STEPS if SINGLE else T, STEPS):
        if checkpoints_ptr is not None:  # noqa: SIM102 (settled at compile time, the inner one at run time)
            if (first > 0) & (first % K == 0):
                store_checkpoint(checkpoints_ptr, first // K, m, N, state, live, VECTOR)
        x = load_input(x_ptr, where, first, T, inner, live, affine, STEPS, VECTOR)
        for k in tl.static_range(STEPS):
            there = first + k < T if GUARDED else True
            if there:
                spike, state = STEP(transformed(x[k], affine), state, derived, alpha)
                now = tl.cast(first + k, tl.int64) * inner
                store(spikes_ptr + now, where, spike.to(tl.float32), live, VECTOR)
                for i in tl.static_range(len(SEQUENCES)):
                    store(sequence_ptrs[i] + now, where, state[SEQUENCES[i]], live, VECTOR)
    store_state(final_ptrs, m, state, live, VECTOR)


@triton.jit
def adjoint_of_chunk(
    steps,  # of the STEPS that there are
    x,  # STEPS of it, as load_input left them, of gs, and of each of `more`
    gs,
    more,  # gradients of the states number SEQUENCES
    state,  # before the first step
    grads,  # behind the last
    of_derived,
    of_affine,
    affine,
    derived,
    alpha,
    STEP: tl.constexpr,
    ADJOINT: tl.constexpr,
    LAST_ADJOINT: tl.constexpr,
    SEQUENCES: tl.constexpr,
    STEPS: tl.constexpr,
    GUARDED: tl.constexpr,
    CLOSED: tl.constexpr,  # grads are 0
):
    """The gradients of the neuron's input, grads before the first step, and the sums of_derived and of_affine, of shift
    and scale, with what the chunk adds to them."""
    before = (state,)
    for k in tl.static_range(STEPS - 1):
        there = k + 1 < steps if GUARDED else True
        if there:
            _spike, state = STEP(transformed(x[k], affine), state, derived, alpha)
        before = before + (state,)
    gx = ()
    for k in tl.static_range(STEPS - 1, -1, -1):
        own = gs[k]
        there = k < steps if GUARDED else True
        if there:
            for i in tl.static_range(len(SEQUENCES)):
                grads = with_added(grads, SEQUENCES[i], more[i][k])
            xn = transformed(x[k], affine)
            if CLOSED and k == STEPS - 1:
                own, grads, parts = LAST_ADJOINT(gs[k], xn, before[k], derived, alpha)
            else:
                own, grads, parts = ADJOINT(gs[k], grads, xn, before[k], derived, alpha)
            if len(of_derived) > 0:
                of_derived = plus(of_derived, parts)
            if len(of_affine) > 0:
                of_affine = plus(of_affine, (own, own * x[k]))
        gx = (own,) + gx
    return gx, grads, of_derived, of_affine


@kernel
def scan_backward(
    gs_ptr,  # [outer][T][inner]
    grad_ptrs,  # [N], of the final states number GRADS
    grad_sequence_ptrs,  # like gs, of the states number SEQUENCES
    x_ptr,
    state_ptrs,
    checkpoints_ptr,
    gx_ptr,  # like x
    initial_ptrs,  # [N] of each state, or none
    grad_constant_ptrs,  # [N], of the constants that are one a neuron
    partial_ptr,  # float64 [TOTALS][slabs][columns] or None: of constants that are one a channel, of shift and scale
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
    LAST_ADJOINT: tl.constexpr,
    FINISH: tl.constexpr,
    KINDS: tl.constexpr,
    RESTS: tl.constexpr,  # of each state the number of the constant at which it rests, or -1
    GRADS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    LEARNED: tl.constexpr,  # whether a constant is a tensor
    TOTALS: tl.constexpr,
    STEPS: tl.constexpr,
    GUARDED: tl.constexpr,
    SINGLE: tl.constexpr,
    PER_CHANNEL: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    SUMS: tl.constexpr = TOTALS > 0
    thread = threads(BLOCK, WIDE)
    column, first_row = slab_thread(thread, columns, rows_per_slab, SUMS)
    of_column = constants_of(constants, column, channels, channel_stride, column < N, KINDS, PER_CHANNEL, 1)
    affine = affine_of(affine_ptr, column, channels, channel_stride, PER_CHANNEL)
    totals = zeros(TOTALS, column, tl.float64)
    for row in range(rows_per_slab if SUMS else 1):
        m, live = slab_neuron(column, first_row + row, columns, rows, N, SUMS, 1)
        where = offsets(m, T, inner, FLAT)
        if len(grad_constant_ptrs) > 0:
            own = constants_of(constants, m, channels, channel_stride, live, KINDS, PER_CHANNEL, 1)
        else:
            own = of_column
        derived = DERIVE(own)
        at_rest = filled(REST(own), m)
        grads = zeros(len(RESTS), m, tl.float32)
        for i in tl.static_range(len(GRADS)):
            grads = with_added(grads, GRADS[i], load(grad_ptrs[i], m, live, 1))
        of_derived = zeros(len(derived) if LEARNED else 0, m, tl.float32)
        of_affine = zeros(2 if len(affine) > 0 else 0, m, tl.float32)
        for first in range(0 if SINGLE else (T - 1) // STEPS * STEPS, -1, -STEPS):
            x = load_input(x_ptr, where, first, T, inner, live, affine, STEPS, 1)
            gs = load_steps(gs_ptr, where, first, T, inner, live, STEPS, 1)
            more = ()
            for i in tl.static_range(len(SEQUENCES)):
                more = more + (load_steps(grad_sequence_ptrs[i], where, first, T, inner, live, STEPS, 1),)
            if len(state_ptrs) > 0:
                state = load_state(state_ptrs, m, live & (first == 0), 1)
            else:
                state = at_rest
            if not SINGLE:  # noqa: SIM102
                if first > 0:
                    state = load_checkpoint(checkpoints_ptr, first // STEPS, m, N, live, len(RESTS))
            gx, grads, of_derived, of_affine = adjoint_of_chunk(
                T - first,
                x,
                gs,
                more,
                state,
                grads,
                of_derived,
                of_affine,
                affine,
                derived,
                alpha,
                STEP,
                ADJOINT,
                LAST_ADJOINT,
                SEQUENCES,
                STEPS,
                GUARDED,
                SINGLE and len(GRADS) + len(SEQUENCES) == 0,
            )
            now = tl.cast(first, tl.int64) * inner
            for k in tl.static_range(STEPS):
                there = live & (first + k < T) if GUARDED else live
                store(gx_ptr + now, where, before_transform(gx[k], affine), there, 1)
                now += inner
        store_state(initial_ptrs, m, grads, live, 1)
        found = of_affine
        if LEARNED:
            of_constants = FINISH(own, of_derived)
            if len(state_ptrs) == 0:
                for i in tl.static_range(len(RESTS)):
                    of_constants = with_added(of_constants, RESTS[i], grads[i])
            store_state(grad_constant_ptrs, m, filled(of_kind(of_constants, KINDS, NEURON), m), live, 1)
            found = of_kind(of_constants, KINDS, CHANNEL) + of_affine
        for i in tl.static_range(len(totals)):
            totals = with_added(totals, i, tl.where(live, found[i], 0.0).to(tl.float64))
    for i in tl.static_range(len(totals)):
        store_sum(partial_ptr, i, thread, slabs * columns, totals[i], 1)
