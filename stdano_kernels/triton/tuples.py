"""Tuples in kernels: a neuron's constants, states, gradients and sums, however many there are of each."""
# mypy: ignore-errors

import triton
import triton.language as tl

from .math import spread
from .memory import load, table_entries

# Kinds of constants: a number, or a tensor of one a channel or one a neuron.
NUMBER, OF_CHANNELS, OF_NEURONS = (tl.constexpr(k) for k in range(3))


@triton.jit
def constants_of(given, m, live, entry, KINDS: tl.constexpr, HOW: tl.constexpr):
    """The constants of neurons m: numbers, or their entries in tensors."""
    values = ()
    for j in tl.static_range(len(given)):
        if KINDS[j] == OF_CHANNELS:
            values += table_entries(given[j], entry, 0, 1)
        elif KINDS[j] == OF_NEURONS:
            values += (load(given[j], m, live, HOW),)
        else:
            values += (given[j],)
    return values


@triton.jit
def of_kind(values, KIND: tl.constexpr, KINDS: tl.constexpr):
    chosen = ()
    for j in tl.static_range(len(values)):
        if KINDS[j] == KIND:
            chosen += (values[j],)
    return chosen


@triton.jit
def zeros(COUNT: tl.constexpr, like, dtype: tl.constexpr):
    values = ()
    for _ in tl.static_range(COUNT):
        values += (tl.zeros(like.shape, dtype),)
    return values


@triton.jit
def plus(a, b):
    """Of as many each: Triton 3.5 does not see where in a call's arguments a tuple ends and the next one begins."""
    sums = ()
    for i in tl.static_range(len(a)):
        sums += (a[i] + b[i],)
    return sums


@triton.jit
def with_added(values, which: tl.constexpr, more):
    sums = ()
    for i in tl.static_range(len(values)):
        sums += (values[i] + more if i == which else values[i],)
    return sums


@triton.jit
def filled(values, like):
    """One of each for every neuron."""
    return [spread(value, like) for value in values]
