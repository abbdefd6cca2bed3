"""What launchers of kernels have in common: checks, grids, how threads divide neurons where sums are taken."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from .common import sum_partials
from .layout import Geometry

# One neuron a thread in backward, which keeps CHECKPOINT_STEPS steps in registers, and several in forward, for
# accesses of up to 128 bits.
WARPS = 4
THREADS = 128
VECTOR = 4
COMPILER = dict(num_warps=WARPS, num_stages=1, enable_fp_fusion=False)

# Sums over a channel: entries of a row, and of all slabs.
_LONGEST_ROW = 65536
_ENTRIES = 131072
_SUM_BLOCK = 4096
# From here on, numbers of neurons and threads are 64-bit in the kernels.
_WIDE = 2**30


def check_dtype(name: str, x: Tensor) -> None:
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"stdano: the Triton kernels take {name} in float32, float16 or bfloat16, got {x.dtype}")


def check_table(name: str, table: Tensor, rows: int, x: Tensor) -> None:
    """What kernels read for each channel of x."""
    shape = (rows, x.shape[2]) if x.dim() >= 3 else None
    if tuple(table.shape) != shape or table.dtype != torch.float32 or not table.is_contiguous():
        raise ValueError(
            f"stdano: {name} must be a contiguous float32 tensor of {rows} rows with an element for each channel "
            f"(dimension 2 of x), got {table.dtype} {list(table.shape)} with x of shape {list(x.shape)}"
        )
    if table.device != x.device:
        raise ValueError(f"stdano: {name} must be on x's device, {x.device}")


def device_of(x: Tensor) -> AbstractContextManager:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def place(g: Geometry) -> dict[str, int | bool]:
    """The kernel arguments that say where a neuron lies."""
    return dict(T=g.T, N=g.N, inner=g.inner, FLAT=g.inner == g.N, WIDE=g.N >= _WIDE)


def channel_place(g: Geometry) -> dict[str, int | bool]:
    """Those that say which channel it is of."""
    return dict(channels=g.channels, channel_stride=g.channel_stride, PER_CHANNEL=g.channels > 1)


def vector(g: Geometry, *tensors: Tensor | None) -> int:
    """Neurons that lie together and aligned in every tensor: 4, or 1 where not even one tensor's start is."""
    if g.inner % VECTOR:
        return 1
    aligned = all(t is None or t.data_ptr() % (VECTOR * t.element_size()) == 0 for t in tensors)
    return VECTOR if aligned else 1


def blocks(threads: int, block: int) -> tuple[int]:
    return (-(-threads // block),)


class Slabs(NamedTuple):
    """How threads divide the neurons where a channel is summed up: as [rows][columns] with all neurons of a column in
    one channel, cut into slabs of rows. A thread walks a column of its slab."""

    rows: int
    columns: int
    rows_per_slab: int
    slabs: int

    @property
    def entries(self) -> int:
        return self.slabs * self.columns


def make_slabs(g: Geometry, sums: bool) -> Slabs:
    if not sums:
        return Slabs(1, g.N, 1, 1)
    columns = g.channels * g.channel_stride if g.channels > 1 else min(g.N, _LONGEST_ROW)
    rows = -(-g.N // columns)
    slabs = max(1, min(_ENTRIES // columns, rows))
    return Slabs(rows, columns, -(-rows // slabs), slabs)


def steps_of(T: int, most: int) -> dict[str, int | bool]:
    """How many time steps a kernel takes at once: all of a short sequence, for whose length it is then compiled."""
    steps = T if 0 < T <= most else most
    return dict(STEPS=steps, GUARDED=T == 0 or T % steps != 0, SINGLE=steps == T)


def add_up(
    partials: Tensor,  # float64 [sums][slabs][columns], see sum_partials
    slabs: Slabs,
    channels: int,
    constants: Sequence[Tensor],  # where the first sums go: float32, one element or one a channel
    sums: Tensor | None,  # float64 [the other sums, channels]
) -> None:
    """The second stage of sums: one small launch. An entry belongs to a channel by its column, so the sum depends on
    the shape alone, not on the device."""
    sum_partials[(channels, partials.shape[0])](
        partial_ptr=partials,
        constant_ptrs=tuple(constants),
        sums_ptr=sums,
        slabs=slabs.slabs,
        columns=slabs.columns,
        channels=channels,
        ONES=tuple(t.numel() == 1 for t in constants),
        BLOCK=_SUM_BLOCK,
        **{**COMPILER, "num_warps": 8},
    )
