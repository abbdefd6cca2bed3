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

CHECKPOINT_STEPS = 8  # time steps between two saved states, and most that backward computes at a time
LOADED_STEPS = 4  # most that forward loads before the first is computed; divides CHECKPOINT_STEPS

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
    """load_steps of x, from which affine's centre is taken away; see scan.transformed for the rest of it."""
    x = load_steps(pointer, where, first, T, inner, mask, STEPS, VECTOR)
    if len(affine) == 0:
        return x
    else:
        deviations = ()
        for k in tl.static_range(STEPS):
            deviations = deviations + (x[k] - affine[0],)
        return deviations


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
    partial_ptr,  # float64 [sums][slabs][columns]
    constant_ptrs,  # float32, where the first sums go: [1] where ONES says so, else [channels]
    sums_ptr,  # float64 [the other sums][channels], or None
    slabs,
    columns,
    channels,
    ONES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One sum of one channel: its entries of [slabs][channels][columns // channels], in a fixed order."""
    channel = tl.program_id(0)
    which = tl.program_id(1)
    size = channels
    for i in tl.static_range(len(ONES)):
        if ONES[i]:
            size = tl.where(which == i, 1, size)
    if channel < size:
        partial_ptr += which * slabs.to(tl.int64) * columns
        width = columns // size
        total = tl.zeros([BLOCK], tl.float64)
        for first in range(0, slabs * width, BLOCK):
            e = first + tl.arange(0, BLOCK)
            where = e // width * columns + channel * width + e % width
            total += tl.load(partial_ptr + where, e < slabs * width, 0.0)
        result = tl.sum(total)
        for i in tl.static_range(len(ONES)):
            if which == i:
                tl.store(constant_ptrs[i] + channel, result.to(tl.float32))
        if sums_ptr is not None:  # noqa: SIM102 (settled at compile time, the inner one at run time)
            if which >= len(ONES):
                tl.store(sums_ptr + (which - len(ONES)) * channels + channel, result)
