"""What kernels load and store: time steps, states, checkpoints, tables of channels, sums."""
# mypy: ignore-errors

import triton
import triton.language as tl

from .common import kernel, step_is_there


@triton.jit
def at(pointer, where, VECTOR: tl.constexpr):
    """Pointers to elements of which each group of VECTOR is contiguous and aligned."""
    pointers = pointer + where
    if VECTOR > 1:
        size: tl.constexpr = pointer.dtype.element_ty.primitive_bitwidth // 8
        pointers = tl.max_contiguous(tl.multiple_of(pointers, VECTOR * size), VECTOR)
    return pointers


@triton.jit
def load(pointer, where, mask, HOW: tl.constexpr):
    """Numbers in float32, codes in int32."""
    value = tl.load(at(pointer, where, HOW.vector), mask)
    if pointer.dtype.element_ty == tl.uint8:
        return value.to(tl.int32)
    else:
        return value.to(tl.float32)


@triton.jit
def store(pointer, where, value, mask, HOW: tl.constexpr):
    tl.store(at(pointer, where, HOW.vector), value.to(pointer.dtype.element_ty), mask)


@triton.jit
def load_steps(pointer, place, first, STEPS: tl.constexpr, HOW: tl.constexpr):
    """Time steps [first, first + STEPS) of a tensor as a tuple; undefined from T on. The mask is there even where all
    steps are: without it ptxas spills registers of the largest kernels."""
    where, live, T, inner = place
    values = ()
    row = first.to(tl.int64) * inner
    for k in tl.static_range(STEPS):
        values += (load(pointer + row, where, live & (first + k < T), HOW),)
        row += inner
    return values


@triton.jit
def store_steps(pointer, place, first, values, HOW: tl.constexpr):
    """Time steps from `first` on, those that there are."""
    where, _live, _T, inner = place
    row = first.to(tl.int64) * inner
    for k in tl.static_range(len(values)):
        store(pointer + row, where, values[k], step_is_there(place, first + k, HOW), HOW)
        row += inner


@triton.jit
def load_state(pointers, m, live, HOW: tl.constexpr):
    return [load(pointer, m, live, HOW) for pointer in pointers]


@triton.jit
def store_state(pointers, m, state, live, HOW: tl.constexpr):
    for i in tl.static_range(len(pointers)):
        store(pointers[i], m, state[i], live, HOW)


@triton.jit
def checkpoint(pointer, chunk, N, STATES: tl.constexpr):
    """Where the states before a chunk of steps are kept, in [chunks][states][N]: for load_state and store_state."""
    pointers = ()
    pointer += (chunk - 1).to(tl.int64) * STATES * N
    for _ in tl.static_range(STATES):
        pointers += (pointer,)
        pointer += N
    return pointers


@triton.jit
def table_entries(table_ptr, entry, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """The neuron's entries in rows [FIRST, FIRST + COUNT); none without a table. Not None, which no function returns
    before Triton 3.7."""
    entries = ()
    if table_ptr is not None:
        for row in tl.static_range(FIRST, FIRST + COUNT):
            entries += (tl.load(table_ptr + (entry[0] + row * entry[1])),)
    return entries


@triton.jit
def store_sums(parts_ptr, thread, entries, sums, HOW: tl.constexpr):
    """A thread's part of each sum, into float64 [sums][entries]."""
    VECTOR: tl.constexpr = HOW.vector
    mask = tl.max_constancy(thread < entries, VECTOR)
    for i in tl.static_range(len(sums)):
        store(parts_ptr + i * entries.to(tl.int64), thread, sums[i], mask, HOW)


@triton.jit
def sum_of(parts_ptr, which, channel, slabs, columns, channels, BLOCK: tl.constexpr):
    """A sum of a channel, of its entries in float64 [sums][slabs][channels][columns // channels], in a fixed order."""
    parts_ptr += which * slabs.to(tl.int64) * columns
    width = columns // channels
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, slabs * width, BLOCK):
        e = first + tl.arange(0, BLOCK)
        where = e // width * columns + channel * width + e % width
        total += tl.load(parts_ptr + where, e < slabs * width, 0.0)
    return tl.sum(total)


@kernel
def sum_partials(parts_ptr, target_ptrs, slabs, columns, channels, ONES: tl.constexpr, BLOCK: tl.constexpr):
    """One sum of one channel. It goes to where each sum's target points, [1] where ONES says so, else [channels]."""
    channel = tl.program_id(0)
    which = tl.program_id(1)
    size = channels
    for i in tl.static_range(len(ONES)):
        if ONES[i]:
            size = tl.where(which == i, 1, size)
    if channel < size:
        result = sum_of(parts_ptr, which, channel, slabs, columns, size, BLOCK)
        for i in tl.static_range(len(ONES)):
            if which == i:
                tl.store(target_ptrs[i] + channel, result.to(target_ptrs[i].dtype.element_ty))
