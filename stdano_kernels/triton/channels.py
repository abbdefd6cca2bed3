"""Passes around a channel's statistics, for BatchNorm before a neuron; tables hold a number for each channel.

sums: sum of x, sum of x*x (in double);   affine: out = grad + slope*(x - centre) + offset
"""
# mypy: ignore-errors

import triton.language as tl

from .common import (
    AHEAD,
    kernel,
    load_steps,
    offsets,
    slab_neuron,
    slab_thread,
    store,
    store_sum,
    table_entry,
    threads,
)


@kernel
def channel_sums(
    x_ptr,  # [outer][T][inner]
    partial_ptr,  # float64 [2][slabs][columns]
    N,
    T,
    inner,
    rows,  # the neurons as [rows][columns], see launch.py
    columns,
    rows_per_slab,
    slabs,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    thread = threads(BLOCK, WIDE)
    column, first_row = slab_thread(thread, columns, rows_per_slab, True)
    total = tl.zeros([BLOCK], tl.float64)
    squares = tl.zeros([BLOCK], tl.float64)
    for row in range(rows_per_slab):
        m, live = slab_neuron(column, first_row + row, columns, rows, N, True, VECTOR)
        where = offsets(m, T, inner, FLAT)
        for first in range(0, T, AHEAD):
            x = load_steps(x_ptr, where, first, T, inner, live, AHEAD, VECTOR)
            for k in tl.static_range(AHEAD):
                value = tl.where(live & (first + k < T), x[k], 0.0).to(tl.float64)
                total += value
                squares = tl.fma(value, value, squares)
    store_sum(partial_ptr, 0, thread, slabs * columns, total, VECTOR)
    store_sum(partial_ptr, 1, thread, slabs * columns, squares, VECTOR)


@kernel
def channel_affine(
    grad_ptr,  # [outer][T][inner]
    x_ptr,
    table_ptr,  # [3][channels]: centre, slope, offset
    out_ptr,
    N,
    T,
    inner,
    channels,
    channel_stride,
    PER_CHANNEL: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    m = threads(BLOCK, WIDE)
    live = tl.max_constancy(m < N, VECTOR)
    where = offsets(m, T, inner, FLAT)
    centre = table_entry(table_ptr, 0, m, channels, channel_stride, PER_CHANNEL)
    slope = table_entry(table_ptr, 1, m, channels, channel_stride, PER_CHANNEL)
    offset = table_entry(table_ptr, 2, m, channels, channel_stride, PER_CHANNEL)
    for first in range(0, T, AHEAD):
        x = load_steps(x_ptr, where, first, T, inner, live, AHEAD, VECTOR)
        grad = load_steps(grad_ptr, where, first, T, inner, live, AHEAD, VECTOR)
        for k in tl.static_range(AHEAD):
            t = first + k
            out = grad[k] + tl.fma(slope, x[k] - centre, offset)
            store(out_ptr + t.to(tl.int64) * inner, where, out, live & (t < T), VECTOR)
