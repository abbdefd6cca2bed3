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
        value = tl.where(value < 1e-30, 1e-30, value)
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
def slab_neuron(column, row, columns, rows, N, SUMS: tl.constexpr):
    """(neuron, whether there is one) of a column in a row."""
    if SUMS:
        m = row * columns + column
        return m, (row < rows) & (m < N)
    else:
        return column, column < N


@triton.jit
def store_sums(partial_ptr, q, entries, tau, v_threshold):
    """A thread's part of the gradients of the constants, into float64 [2][entries]."""
    tl.store(partial_ptr + q, tau, q < entries)
    tl.store(partial_ptr + entries.to(tl.int64) + q, v_threshold, q < entries)


@triton.jit
def sum_channel(partial_ptr, out_ptr, slabs, columns, size, BLOCK: tl.constexpr):
    """One of `size` channels: the sum of its entries of [slabs][size][columns // size], in a fixed order."""
    channel = tl.program_id(0)
    if channel < size:
        width = columns // size
        total = tl.zeros([BLOCK], tl.float64)
        for first in range(0, slabs * width, BLOCK):
            e = first + tl.arange(0, BLOCK)
            where = e // width * columns + channel * width + e % width
            total += tl.load(partial_ptr + where, e < slabs * width, 0.0)
        tl.store(out_ptr + channel, tl.sum(total).to(tl.float32))


@kernel
def sum_constants(
    partial_ptr,  # float64 [2][slabs][columns]: tau, v_threshold
    tau_ptr,  # float32 [tau_size], or None: a number
    v_threshold_ptr,
    slabs,
    columns,
    tau_size,
    v_threshold_size,
    BLOCK: tl.constexpr,
):
    if tl.program_id(1) == 0:
        if tau_ptr is not None:
            sum_channel(partial_ptr, tau_ptr, slabs, columns, tau_size, BLOCK)
    else:
        if v_threshold_ptr is not None:
            entries = slabs.to(tl.int64) * columns
            sum_channel(partial_ptr + entries, v_threshold_ptr, slabs, columns, v_threshold_size, BLOCK)
