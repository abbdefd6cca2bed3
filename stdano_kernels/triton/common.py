"""What the kernels share around a time step: which neurons a program serves, and where they lie.

A tensor in x's layout is dense in memory order [outer][T][inner]. Neuron m of N = outer*inner lies at
(m // inner)*T*inner + t*inner + m % inner, a state of it at m. Its channel is (m // channel_stride) % channels.

Kernels are given pointers and integers one by one, since Triton compiles anew for each kind and alignment of what is in
a tuple; what they are compiled for is given whole, as ``How``. Functions pass on (where, live, T, inner) as ``place``,
and (channel, channels) as ``entry``.
"""
# mypy: ignore-errors

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import triton
import triton.language as tl

CHECKPOINT_STEPS = 8  # time steps between two saved states, and most that backward computes at a time
LOADED_STEPS = 4  # most that forward loads before the first is computed; divides CHECKPOINT_STEPS

K = tl.constexpr(CHECKPOINT_STEPS)
AHEAD = tl.constexpr(LOADED_STEPS)


class How(NamedTuple):
    """What a kernel is compiled for."""

    steps: int  # time steps that are loaded before the first is computed
    guarded: bool  # there may be fewer
    single: bool  # there are exactly these
    flat: bool  # time is the outermost dimension in memory
    constant: bool  # x has one step, which is that of all; so has its gradient, summed up
    wide: bool  # numbers of neurons take 64 bits
    per_channel: bool  # tables have an entry for each channel
    sums: bool  # are taken: a thread serves several rows of neurons
    vector: int  # neurons that lie together and aligned
    block: int  # neurons that a program serves


def kernel(function: Callable) -> Any:
    """triton.jit without specialisation: no value, size or address of an argument compiles the kernel again."""
    names = [n for n, p in inspect.signature(function).parameters.items() if p.annotation is not tl.constexpr]
    return triton.jit(function, do_not_specialize=names, do_not_specialize_on_alignment=names)


@triton.jit
def threads(HOW: tl.constexpr):
    """The numbers of the program's threads; 64 bits where 32 could overflow."""
    program = tl.program_id(0)
    if HOW.wide:
        program = program.to(tl.int64)
    return program * HOW.block + tl.arange(0, HOW.block)


@triton.jit
def slab_of(columns, rows, HOW: tl.constexpr):
    """(thread, column, first row) of the program's threads in slabs of so many columns and rows of neurons, see
    launch.py; without sums, a row of all neurons."""
    thread = threads(HOW)
    if HOW.sums:
        return thread, thread % columns, thread // columns * rows
    else:
        return thread, thread, 0


@triton.jit
def place_of(m, N, T, inner, HOW: tl.constexpr):
    """Where neurons m begin in a tensor with time, and which of them there are."""
    VECTOR: tl.constexpr = HOW.vector
    live = tl.max_constancy(m < N, VECTOR)
    if HOW.flat:
        where = m.to(tl.int64)
    else:
        where = (m // inner).to(tl.int64) * (T - 1) * inner + m
    return where, live, T, inner


@triton.jit
def step_is_there(place, step, HOW: tl.constexpr):
    """Of which neurons there is a time step."""
    if HOW.guarded:
        return place[1] & (step < place[2])
    else:
        return place[1]


@triton.jit
def entry_of(m, channels, channel_stride, HOW: tl.constexpr):
    """Where the neuron's entries lie in tables, [rows][channels]."""
    if HOW.per_channel:
        return m // channel_stride % channels, channels
    else:
        return 0, 1
