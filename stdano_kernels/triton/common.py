"""What the kernels share around a time step: which neurons a program serves, where they lie, what their constants are.

A tensor in x's layout is dense in memory order [outer][T][inner]. Neuron m of N = outer*inner lies at
(m // inner)*T*inner + t*inner + m % inner, a state of it at m. Its channel is (m // channel_stride) % channels.
"""
# mypy: ignore-errors

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

CHECKPOINT_STEPS = 8  # time steps between two saved states, and those that backward recomputes at a time
LOADED_STEPS = 4  # of forward, loaded before the first is computed; divides CHECKPOINT_STEPS

K = tl.constexpr(CHECKPOINT_STEPS)
AHEAD = tl.constexpr(LOADED_STEPS)


def kernel(function: Callable) -> Any:
    """triton.jit without specialisation: no value, size or address of an argument compiles the kernel again."""
    names = [n for n, p in inspect.signature(function).parameters.items() if p.annotation is not tl.constexpr]
    return triton.jit(function, do_not_specialize=names, do_not_specialize_on_alignment=names)


@triton.jit
def threads(BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """The numbers of the program's threads, [BLOCK]; 64 bits where 32 could overflow."""
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    return program * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def offsets(m, T, inner, FLAT: tl.constexpr):
    """Where neurons m begin in a tensor with time; FLAT: time is the outermost dimension in memory."""
    if FLAT:
        return m.to(tl.int64)
    else:
        return (m // inner).to(tl.int64) * (T - 1) * inner + m


@triton.jit
def at(pointer, where, VECTOR: tl.constexpr):
    """Pointers to elements of which each group of VECTOR is contiguous and aligned."""
    pointers = pointer + where
    if VECTOR > 1:
        size: tl.constexpr = pointer.dtype.element_ty.primitive_bitwidth // 8
        pointers = tl.max_contiguous(tl.multiple_of(pointers, VECTOR * size), VECTOR)
    return pointers


@triton.jit
def load(pointer, where, mask, VECTOR: tl.constexpr):
    return tl.load(at(pointer, where, VECTOR), mask).to(tl.float32)


@triton.jit
def store(pointer, where, value, mask, VECTOR: tl.constexpr):
    tl.store(at(pointer, where, VECTOR), value.to(pointer.dtype.element_ty), mask)


@triton.jit
def load_or(pointer, where, default, mask, VECTOR: tl.constexpr):
    """A state, or the default where there is no tensor."""
    if pointer is not None:
        return load(pointer, where, mask, VECTOR)
    else:
        return tl.full(where.shape, 1.0, tl.float32) * default


@triton.jit
def load_steps(pointer, where, first, T, inner, mask, STEPS: tl.constexpr, VECTOR: tl.constexpr):
    """Time steps [first, first + STEPS) of a tensor as a tuple; undefined from T on."""
    values = ()
    row = first.to(tl.int64) * inner
    for k in tl.static_range(STEPS):
        values = values + (load(pointer + row, where, mask & (first + k < T), VECTOR),)
        row += inner
    return values


@triton.jit
def table_entry(table_ptr, row: tl.constexpr, m, channels, channel_stride, PER_CHANNEL: tl.constexpr):
    """The neuron's entry in a row of a table, [rows][channels]."""
    if PER_CHANNEL:
        return tl.load(table_ptr + (m // channel_stride % channels + row * channels))
    else:
        return tl.load(table_ptr + row)


@triton.jit
def affine_of(affine_ptr, m, channels, channel_stride, PER_CHANNEL: tl.constexpr):
    """(centre, scale, shift) of the neuron's input; empty where that is x itself. Not None, which no function returns
    before Triton 3.7."""
    if affine_ptr is not None:
        centre = table_entry(affine_ptr, 0, m, channels, channel_stride, PER_CHANNEL)
        scale = table_entry(affine_ptr, 1, m, channels, channel_stride, PER_CHANNEL)
        shift = table_entry(affine_ptr, 2, m, channels, channel_stride, PER_CHANNEL)
        return (centre, scale, shift)
    else:
        return ()


@triton.jit
def load_input(pointer, where, first, T, inner, mask, affine, STEPS: tl.constexpr, VECTOR: tl.constexpr):
    """load_steps of x, from which affine's centre is taken away; see steps.transformed for the rest of it."""
    x = load_steps(pointer, where, first, T, inner, mask, STEPS, VECTOR)
    if len(affine) == 0:
        return x
    else:
        deviations = ()
        for k in tl.static_range(STEPS):
            deviations = deviations + (x[k] - affine[0],)
        return deviations


@triton.jit
def constant(value, m, channels, channel_stride, PER_CHANNEL: tl.constexpr):
    """A number, or the neuron's entry in a tensor of one element or one a channel."""
    if tl.constexpr(not value.dtype.is_ptr()):
        return value
    elif PER_CHANNEL:
        return tl.load(value + m // channel_stride % channels)
    else:
        return tl.load(value)


@triton.jit
def time_constant(tau, m, channels, channel_stride, PER_CHANNEL: tl.constexpr):
    value = constant(tau, m, channels, channel_stride, PER_CHANNEL)
    if tl.constexpr(tau.dtype.is_ptr()):  # nobody has looked at the values; at these ends exp(-1/tau) is 0 and 1
        value = tl.where(value < 1e-19, 1e-19, value)
        value = tl.where(value > 1e30, 1e30, value)
    return value


@triton.jit
def slab_thread(q, columns, rows_per_slab, SUMS: tl.constexpr):
    """(column, first row) of thread q among rows of `columns` neurons; without sums, a row of all neurons."""
    if SUMS:
        return q % columns, q // columns * rows_per_slab
    else:
        return q, 0


@triton.jit
def slab_neuron(column, row, columns, rows, N, SUMS: tl.constexpr, VECTOR: tl.constexpr):
    """(neuron, whether there is one) of a column in a row."""
    if SUMS:
        m = row * columns + column
        return m, tl.max_constancy((row < rows) & (m < N), VECTOR)
    else:
        return column, column < N


@triton.jit
def store_sum(partial_ptr, which: tl.constexpr, q, entries, value, VECTOR: tl.constexpr):
    """A thread's part of a sum, into float64 [sums][entries]."""
    mask = tl.max_constancy(q < entries, VECTOR)
    tl.store(at(partial_ptr + which * entries.to(tl.int64), q, VECTOR), value.to(tl.float64), mask)


@kernel
def sum_partials(
    partial_ptr,  # float64 [sums][slabs][columns], those of tau and v_threshold first where one of these is wanted
    tau_ptr,  # float32 [tau_size], or None: not wanted
    v_threshold_ptr,
    sums_ptr,  # float64 [the other sums][channels], or None
    slabs,
    columns,
    tau_size,
    v_threshold_size,
    channels,
    CONSTANTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One sum of one channel: its entries of [slabs][channels][columns // channels], in a fixed order."""
    channel = tl.program_id(0)
    which = tl.program_id(1)
    size = channels
    if CONSTANTS:
        size = tl.where(which == 0, tau_size, tl.where(which == 1, v_threshold_size, channels))
    if channel < size:
        partial_ptr += which * slabs.to(tl.int64) * columns
        width = columns // size
        total = tl.zeros([BLOCK], tl.float64)
        for first in range(0, slabs * width, BLOCK):
            e = first + tl.arange(0, BLOCK)
            where = e // width * columns + channel * width + e % width
            total += tl.load(partial_ptr + where, e < slabs * width, 0.0)
        result = tl.sum(total)
        if CONSTANTS:
            if tau_ptr is not None:  # noqa: SIM102 (settled at compile time, the inner one at run time)
                if which == 0:
                    tl.store(tau_ptr + channel, result.to(tl.float32))
            if v_threshold_ptr is not None:  # noqa: SIM102
                if which == 1:
                    tl.store(v_threshold_ptr + channel, result.to(tl.float32))
            which -= 2
        if sums_ptr is not None:  # noqa: SIM102
            if which >= 0:
                tl.store(sums_ptr + which * channels + channel, result)
