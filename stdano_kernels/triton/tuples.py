"""Tuples in kernels: a neuron's constants, states, gradients and sums, however many there are of each."""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import load, store, table_entry
from .math import spread

NUMBER, CHANNEL, NEURON = (tl.constexpr(k) for k in range(3))  # kinds of constants: what there is one for


@triton.jit
def constants_of(
    given, m, channels, channel_stride, live, KINDS: tl.constexpr, PER_CHANNEL: tl.constexpr, VECTOR: tl.constexpr
):
    """The constants of neurons m: numbers, or their entries in tensors."""
    values = ()
    for j in tl.static_range(len(KINDS)):
        if KINDS[j] == CHANNEL:
            values = values + (table_entry(given[j], 0, m, channels, channel_stride, PER_CHANNEL),)
        elif KINDS[j] == NEURON:
            values = values + (load(given[j], m, live, VECTOR),)
        else:
            values = values + (given[j],)
    return values


@triton.jit
def of_kind(values, KINDS: tl.constexpr, KIND: tl.constexpr):
    chosen = ()
    for j in tl.static_range(len(KINDS)):
        if KINDS[j] == KIND:
            chosen = chosen + (values[j],)
    return chosen


@triton.jit
def zeros(COUNT: tl.constexpr, like, dtype: tl.constexpr):
    values = ()
    for _ in tl.static_range(COUNT):
        values = values + (tl.zeros(like.shape, dtype),)
    return values


@triton.jit
def plus(a, b):
    """Of as many each: Triton 3.5 does not see where in a call's arguments a tuple ends and the next one begins."""
    sums = ()
    for i in tl.static_range(len(a)):
        sums = sums + (a[i] + b[i],)
    return sums


@triton.jit
def with_added(values, which: tl.constexpr, more):
    sums = ()
    for i in tl.static_range(len(values)):
        if i == which:
            sums = sums + (values[i] + more,)
        else:
            sums = sums + (values[i],)
    return sums


@triton.jit
def filled(values, like):
    """One of each for every neuron."""
    out = ()
    for i in tl.static_range(len(values)):
        out = out + (spread(values[i], like),)
    return out


@triton.jit
def load_state(pointers, m, live, VECTOR: tl.constexpr):
    state = ()
    for i in tl.static_range(len(pointers)):
        state = state + (load(pointers[i], m, live, VECTOR),)
    return state


@triton.jit
def store_state(pointers, m, state, live, VECTOR: tl.constexpr):
    for i in tl.static_range(len(pointers)):
        store(pointers[i], m, state[i], live, VECTOR)


@triton.jit
def load_checkpoint(pointer, chunk, m, N, live, COUNT: tl.constexpr):
    """[chunks][states][N]"""
    where = (chunk - 1).to(tl.int64) * COUNT * N + m
    state = ()
    for _ in tl.static_range(COUNT):
        state = state + (load(pointer, where, live, 1),)
        where += N
    return state


@triton.jit
def store_checkpoint(pointer, chunk, m, N, state, live, VECTOR: tl.constexpr):
    where = (chunk - 1).to(tl.int64) * len(state) * N + m
    for i in tl.static_range(len(state)):
        store(pointer, where, state[i], live, VECTOR)
        where += N
