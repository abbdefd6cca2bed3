"""How memory is counted: what torch's allocator had given out at once, to the byte, the same on every run.

Everything that goes through the allocator counts: outputs, what autograd keeps, gradients, and what an operator
takes for itself meanwhile, in eager mode, in compiled graphs and in stdano's kernels alike. The resident size of the
process is not used: it holds whatever malloc keeps of freed memory, and the interpreter.
"""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 2**20


def peak_bytes(work: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes at once that ``work`` had allocated, beyond what there was before it.

    On a GPU from the allocator's own counter (which rounds each tensor up to 512 bytes), on the CPU from the
    profiler's record of every allocation and release.
    """
    gc.collect()
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return max(0, *itertools.accumulate(_changes(work), initial=0))


def held_bytes(work: Callable[[], object], device: str = "cpu") -> int:
    """The bytes that ``work`` has allocated and that are still held when it has returned, with its result alive.

    Of a forward pass and its loss: what is held until the backward pass, the states of neurons included.
    """
    gc.collect()
    if device != "cpu":
        before = torch.cuda.memory_allocated(device)
        result = work()
        held = torch.cuda.memory_allocated(device) - before
        del result
        return held
    return sum(_changes(work))


def quiet_profile(**settings: Any) -> profile:
    """torch's profiler, without its reports of each start, and of the lack of a GPU, on stderr."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    return profile(**settings)


def _changes(work: Callable[[], object]) -> list[int]:
    """Every allocation on the CPU, and every release as a negative number, in order; the result's comes after."""
    with quiet_profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = work()
    del result
    results = profiler.profiler.kineto_results  # events() of the profiler itself has memory summed up by operator
    changes = [(e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"]
    # Stable: what one thread did in one instant keeps its order.
    return [change for _, change in sorted(changes, key=lambda c: c[0])]
