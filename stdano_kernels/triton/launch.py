"""From tensors to launches: grids, how threads divide neurons where sums are taken, what a kernel is compiled for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.runtime import driver

from .common import CHECKPOINT_STEPS, LOADED_STEPS, How
from .layout import Geometry
from .memory import sum_partials

# Of a program. One neuron a thread in backward, which keeps CHECKPOINT_STEPS steps in registers, and several in
# forward, for accesses of up to 128 bits.
_THREADS = 128
_VECTOR = 4

# Sums over a channel: entries of a row, and of all slabs.
_LONGEST_ROW = 65536
_ENTRIES = 131072
_SUM_THREADS, _SUM_BLOCK = 256, 4096
# From here on, numbers of neurons and threads are 64-bit in the kernels; twice as many are counted.
_WIDE = 2**29


def _slabs(g: Geometry) -> tuple[int, int, int]:
    """How threads divide the neurons where a channel is summed up: as rows of so many columns, with all neurons of a
    column in one channel, cut into slabs of so many rows; and how many slabs. A thread walks a column of its slab."""
    columns = g.channels * g.channel_stride if g.channels > 1 else min(g.N, _LONGEST_ROW)
    rows = -(-g.N // columns)
    of_slab = -(-rows // max(1, _ENTRIES // columns))
    return columns, of_slab, -(-rows // of_slab)


@cache
def warp_size(device: torch.device) -> int:
    """64 on some of AMD's devices, 32 on all others."""
    with torch.cuda.device(device):
        return int(driver.active.get_current_target().warp_size)


def compiler_options(threads: int, device: torch.device) -> dict[str, Any]:
    """Of more threads than a program has elements, some would compute what others do."""
    return dict(num_warps=threads // warp_size(device), num_stages=1, enable_fp_fusion=False)


def on_device(device: torch.device) -> Any:
    """Makes a device the current one, if it is one of CUDA's."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def run(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any]) -> None:
    kernel[grid](**arguments)


class Finish(NamedTuple):
    """A kernel of finish.py."""

    kernel: Any
    sums: int  # of each channel that it takes
    arguments: dict[str, Any]

    def run(self, g: Geometry, parts: Tensor | None, columns: int, slabs: int, device: torch.device) -> None:
        given = dict(parts_ptr=parts, slabs=slabs, columns=columns, channels=g.channels, BLOCK=_SUM_BLOCK)
        given |= dict(count=g.T * g.N // g.channels) | self.arguments | compiler_options(_SUM_THREADS, device)
        run(self.kernel, (g.channels,), given)


def launch(
    kernel: Any,
    g: Geometry,
    given: Sequence[Any],
    sums: Sequence[Tensor] = (),
    finish: Finish | None = None,
    backward: bool = False,
    constant: bool = False,
    **settings: Any,
) -> None:
    """Runs a kernel for all neurons, and what adds up the sums that it takes over the neurons of each channel.

    Args:
        given: the kernel's first arguments.
        sums: where each sum goes, of one element or one a channel.
        finish: what becomes of the kernel's last sums, behind these.
        backward: a thread takes one neuron, and CHECKPOINT_STEPS steps at once.
        constant: x is the same at every step.
        settings: more of the kernel's arguments.
    """
    if g.N == 0:
        for t in sums:
            t.zero_()
        return
    groups = [value if isinstance(value, tuple) else (value,) for value in given]
    tensors = [value for group in groups for value in group if isinstance(value, Tensor)]
    count = len(sums) + (finish.sums if finish else 0)
    columns, rows, slabs = _slabs(g) if count else (g.N, 1, 1)
    # Several neurons together where every tensor's start and rows are aligned.
    aligned = all(t.data_ptr() % (_VECTOR * t.element_size()) == 0 for t in tensors if t.numel() >= g.N)
    vector = _VECTOR if not backward and aligned and g.inner % _VECTOR == columns % _VECTOR == 0 else 1
    # All steps of a short sequence at once, for whose length the kernel is then compiled.
    most = CHECKPOINT_STEPS if backward else LOADED_STEPS
    steps = g.T if 0 < g.T <= most else most
    how = How(
        steps=steps,
        guarded=g.T == 0 or g.T % steps != 0,
        single=steps == g.T,
        flat=g.inner == g.N,
        constant=constant,
        wide=g.N >= _WIDE,
        per_channel=g.channels > 1,
        sums=count > 0,
        vector=vector,
        block=_THREADS * vector,
    )
    device = tensors[0].device
    partials = tensors[0].new_empty(count, slabs, columns, dtype=torch.float64) if count else None
    every = dict(g._asdict(), parts_ptr=partials, columns=columns, rows=rows, slabs=slabs)
    own = {name: value for name, value in every.items() if name in kernel.arg_names}
    arguments = dict(zip(kernel.arg_names, given, strict=False), **own, **settings, HOW=how)
    with on_device(device):
        run(kernel, (-(-slabs * columns // how.block),), arguments | compiler_options(_THREADS, device))
        if sums:
            # A small launch. An entry belongs to a channel by its column, so the sum depends on the shape and on a
            # warp's size alone.
            second: dict[str, Any] = dict(every, target_ptrs=tuple(sums), ONES=tuple(t.numel() == 1 for t in sums))
            second = {name: value for name, value in second.items() if name in sum_partials.arg_names}
            second |= dict(BLOCK=_SUM_BLOCK, **compiler_options(_SUM_THREADS, device))
            run(sum_partials, (g.channels, len(sums)), second)
        if finish:
            finish.run(g, None if partials is None else partials[len(sums) :], columns, slabs, device)
