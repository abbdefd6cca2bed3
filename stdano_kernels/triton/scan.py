"""One forward and one backward kernel for every neuron.

A neuron is functions of one step, which ``define/triton.py`` prints. States, constants, gradients are tuples::

    derive(constants)                                -> derived           what depends on constants alone
    rest(constants)                                  -> state             where a sequence begins
    step(x, state, derived, alpha)                   -> spike, state
    adjoint(gs, grads, x, state, derived, alpha)     -> gx, grads, those of derived     state: before the step
    last_adjoint(gs, x, state, derived, alpha)       -> the same where no gradient comes from behind
    finish(constants, gradients of derived)          -> those of constants

Forward, HOW.steps time steps are loaded before the first is computed, and backward they are computed in registers. What
is not there is an empty tuple, and costs nothing.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import K, entry_of, kernel, place_of, slab_of, threads
from .memory import checkpoint, load, load_state, load_steps, store, store_state, store_steps, store_sums, table_entries
from .tuples import OF_CHANNELS, OF_NEURONS, constants_of, filled, of_kind, plus, with_added, zeros


@triton.jit
def load_input(pointer, place, first, affine, HOW: tl.constexpr):
    """Steps of x, from which affine's centre is taken away; see `transformed` for the rest of it. Where x is constant
    they are one, loaded once."""
    STEPS: tl.constexpr = HOW.steps
    if HOW.constant:
        x = ()
        step = load(pointer, place[0], place[1], HOW)
        for _ in tl.static_range(STEPS):
            x += (step,)
    else:
        x = load_steps(pointer, place, first, STEPS, HOW)
    if len(affine) > 0:
        x = [value - affine[0] for value in x]
    return x


@triton.jit
def transformed(x, affine):
    """The neuron's input: x, or scale*x + shift where x is what load_input left of it."""
    return tl.fma(affine[1], x, affine[2]) if len(affine) > 0 else x


@kernel
def scan_forward(
    x_ptr,  # [outer][T][inner]
    state_ptrs,  # [N] of each state; none: at rest
    spikes_ptr,  # like x
    final_ptrs,  # [N] of each state, or none
    sequence_ptrs,  # like x, of the states number SEQUENCES
    checkpoints_ptr,  # [(T - 1)//K][states][N] or None
    constants,  # a number, or a tensor of one a channel or one a neuron, each as KINDS says; behind them alpha
    affine_ptr,  # [3][channels]: centre, scale, shift of the neuron's input; or None: it is x
    N,
    T,
    inner,
    channels,
    channel_stride,
    NEURONS: tl.constexpr,
    KINDS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    HOW: tl.constexpr,
):
    m = threads(HOW)
    place = place_of(m, N, T, inner, HOW)
    live = place[1]
    entry = entry_of(m, channels, channel_stride, HOW)
    own = constants_of(constants, m, live, entry, KINDS, HOW)
    derived = NEURONS.derive[0](own)
    affine = table_entries(affine_ptr, entry, 0, 3)
    state = filled(NEURONS.rest[0](own), m)
    if len(state_ptrs) > 0:
        state = load_state(state_ptrs, m, live, HOW)
    once = load_input(x_ptr, place, 0, affine, HOW) if HOW.constant else ()
    for first in range(0, HOW.steps if HOW.single else T, HOW.steps):
        if checkpoints_ptr is not None:  # noqa: SIM102 (settled at compile time, the inner one at run time)
            if (first > 0) & (first % K == 0):
                store_state(checkpoint(checkpoints_ptr, first // K, N, len(state)), m, state, live, HOW)
        x = once if HOW.constant else load_input(x_ptr, place, first, affine, HOW)
        for k in tl.static_range(len(x)):
            there = first + k < T if HOW.guarded else True
            if there:
                spike, state = NEURONS.step[0](transformed(x[k], affine), state, derived, own[-1])
                store_steps(spikes_ptr, place, first + k, (spike.to(tl.float32),), HOW)
                for i in tl.static_range(len(SEQUENCES)):
                    store_steps(sequence_ptrs[i], place, first + k, (state[SEQUENCES[i]],), HOW)
    store_state(final_ptrs, m, state, live, HOW)


@triton.jit
def adjoint_of_chunk(
    steps,  # of the HOW.steps that there are
    x,  # HOW.steps of it, as load_input left them, of gs, and of each of `more`
    gs,
    more,  # gradients of the states number SEQUENCES
    state,  # before the first step
    grads,  # behind the last
    sums,  # of the gradients of what derive() returns, and of those of shift and scale, before the chunk
    affine,
    derived,
    alpha,
    NEURONS: tl.constexpr,
    INDEX: tl.constexpr,  # which of them
    SEQUENCES: tl.constexpr,
    CLOSED: tl.constexpr,  # grads are 0
    HOW: tl.constexpr,
):
    """The gradients of the neuron's input, grads before the first step, and the sums with what the chunk adds."""
    STEPS: tl.constexpr = HOW.steps
    of_derived, of_affine = sums
    before = (state,)
    for k in tl.static_range(STEPS - 1):
        there = k + 1 < steps if HOW.guarded else True
        if there:
            _spike, state = NEURONS.step[INDEX](transformed(x[k], affine), state, derived, alpha)
        before += (state,)
    gx = ()
    for k in tl.static_range(STEPS - 1, -1, -1):
        own = gs[k]
        there = k < steps if HOW.guarded else True
        if there:
            for i in tl.static_range(len(more)):
                grads = with_added(grads, SEQUENCES[i], more[i][k])
            xn = transformed(x[k], affine)
            if CLOSED and k == STEPS - 1:
                own, grads, parts = NEURONS.last_adjoint[INDEX](gs[k], xn, before[k], derived, alpha)
            else:
                own, grads, parts = NEURONS.adjoint[INDEX](gs[k], grads, xn, before[k], derived, alpha)
            if len(of_derived) > 0:
                of_derived = plus(of_derived, parts)
            if len(of_affine) > 0:
                of_affine = plus(of_affine, (own, own * x[k]))
        gx = (own,) + gx
    return gx, grads, (of_derived, of_affine)


@triton.jit
def with_steps(of_all, gx, steps, HOW: tl.constexpr):
    """The sum of the gradients of all steps with those of a chunk, of which there are so many, last step first."""
    total = of_all[0]
    for k in tl.static_range(len(gx) - 1, -1, -1):
        total = tl.where(k < steps, total + gx[k], total) if HOW.guarded else total + gx[k]
    return (total,)


@kernel
def scan_backward(
    gs_ptr,  # [outer][T][inner]
    grad_ptrs,  # [N] of each final state, None where there is none; or none at all
    grad_sequence_ptrs,  # like gs, of the states number SEQUENCES
    x_ptr,
    state_ptrs,
    checkpoints_ptr,
    gx_ptr,  # like x
    initial_ptrs,  # [N] of each state, or none
    grad_constant_ptrs,  # [N], of the constants that are one a neuron
    constants,
    affine_ptr,
    N,
    T,
    inner,
    channels,
    channel_stride,
    parts_ptr,  # float64 [sums][slabs][columns] or None: of constants that are one a channel, of shift and scale
    columns,
    rows,
    slabs,
    NEURONS: tl.constexpr,
    KINDS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    HOW: tl.constexpr,
):
    STEPS: tl.constexpr = HOW.steps
    STATES: tl.constexpr = NEURONS.states[0]
    CLOSED: tl.constexpr = HOW.single and len(grad_ptrs) + len(SEQUENCES) == 0
    thread, column, first_row = slab_of(columns, rows, HOW)
    entry = entry_of(column, channels, channel_stride, HOW)
    affine = table_entries(affine_ptr, entry, 0, 3)
    AFFINE_SUMS: tl.constexpr = 2 if len(affine) > 0 else 0
    of_channels = of_kind(constants, OF_CHANNELS, KINDS)
    LEARNED: tl.constexpr = len(of_channels) + len(grad_constant_ptrs) > 0
    of_column = constants_of(constants, column, column < N, entry, KINDS, HOW)
    totals = zeros(len(of_channels) + AFFINE_SUMS, column, tl.float64)
    for row in range(rows if HOW.sums else 1):
        m = (first_row + row) * columns + column if HOW.sums else column
        place = place_of(m, N, T, inner, HOW)
        live = place[1]
        own = of_column
        if len(grad_constant_ptrs) > 0:
            own = constants_of(constants, m, live, entry, KINDS, HOW)
        derived = NEURONS.derive[0](own)
        at_rest = filled(NEURONS.rest[0](own), m)
        grads = zeros(STATES, m, tl.float32)
        for i in tl.static_range(len(grad_ptrs)):
            if grad_ptrs[i] is not None:
                grads = with_added(grads, i, load(grad_ptrs[i], m, live, HOW))
        sums = (zeros(len(derived) if LEARNED else 0, m, tl.float32), zeros(AFFINE_SUMS, m, tl.float32))
        once = load_input(x_ptr, place, 0, affine, HOW) if HOW.constant else ()
        # Adding to -0.0 leaves every number as it is.
        of_all = filled((-0.0,), m) if HOW.constant else ()
        for first in range(0 if HOW.single else (T - 1) // STEPS * STEPS, -1, -STEPS):
            x = once if HOW.constant else load_input(x_ptr, place, first, affine, HOW)
            gs = load_steps(gs_ptr, place, first, STEPS, HOW)
            more = ()
            for i in tl.static_range(len(SEQUENCES)):
                more += (load_steps(grad_sequence_ptrs[i], place, first, STEPS, HOW),)
            state = at_rest
            if len(state_ptrs) > 0:
                state = load_state(state_ptrs, m, live & (first == 0), HOW)
            if not HOW.single:  # noqa: SIM102
                if first > 0:
                    state = load_state(checkpoint(checkpoints_ptr, first // STEPS, N, STATES), m, live, HOW)
            gx, grads, sums = adjoint_of_chunk(
                T - first, x, gs, more, state, grads, sums, affine, derived, own[-1], NEURONS, 0, SEQUENCES, CLOSED, HOW
            )
            if len(affine) > 0:
                gx = [affine[1] * value for value in gx]
            if HOW.constant:
                of_all = with_steps(of_all, gx, T - first, HOW)
            else:
                store_steps(gx_ptr, place, first, gx, HOW)
        if HOW.constant:
            store(gx_ptr, m, of_all[0], live, HOW)
        store_state(initial_ptrs, m, grads, live, HOW)
        found = sums[1]
        if LEARNED:
            of_constants = NEURONS.finish[0](own, sums[0])
            if len(state_ptrs) == 0:
                for i in tl.static_range(STATES):
                    of_constants = with_added(of_constants, NEURONS.rests[0][i], grads[i])
            of_neurons = filled(of_kind(of_constants, OF_NEURONS, KINDS), m)
            store_state(grad_constant_ptrs, m, of_neurons, live, HOW)
            found = of_kind(of_constants, OF_CHANNELS, KINDS) + found
        totals = plus(totals, [tl.where(live, value, 0.0) for value in found])
    store_sums(parts_ptr, thread, slabs * columns, totals, HOW)
