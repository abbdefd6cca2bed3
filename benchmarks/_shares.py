"""Where the time of a train step goes: the profiler's own time of each operator, put in groups.

An operator belongs to the group of its name. SpikingJelly's neurons are made of general operators on a CPU: what runs
within a neuron's forward, and what autograd runs for that, is the neuron's. Norm and neuron fused are one operator,
which counts as the neuron; compiled, both are in kernels that count as the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from _memory import quiet_profile
from torch import nn
from torch.profiler import ProfilerActivity, record_function

CONVOLUTION, NORM, NEURON, PACKING, REST = GROUPS = ("convolution, matmul", "norm", "neuron", "packing", "rest")
# Parts of operators' names, the first that fits. The names of compiled kernels list all that is in them; packing may be
# part of a neuron's or a convolution's name.
NAMES = {
    REST: ("triton_",),
    PACKING: ("pack",),
    CONVOLUTION: ("conv", "::mm", "::addmm", "::bmm", "::baddbmm"),
    NORM: ("batch_norm", "batchnorm"),
    NEURON: ("stdano",),
}
IN_NEURON = "benchmark.neuron"  # the range around a neuron's forward
BACKWARD = "autograd::engine::evaluate_function"  # around what a node runs; it carries the node's number


def shares(step: Callable[[], object], neurons: Sequence[nn.Module], device: str, steps: int = 3) -> dict[str, float]:
    """The share of each group in the time of ``steps`` steps: of the device's kernels, or on a CPU of the operators.

    Args:
        step: the work; called once more beforehand.
        neurons: modules whose forward is a neuron's. Left as they were.
    """
    handles = [handle for module in neurons for handle in _ranges(module)]
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device != "cpu")
    try:
        step()  # hooks may change what a network runs
        with quiet_profile(activities=activities) as profiler:
            for _ in range(steps):
                step()
            if device != "cpu":
                torch.cuda.synchronize(device)
    finally:
        for handle in handles:
            handle.remove()
    times = dict.fromkeys(GROUPS, 0.0)
    events = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CPU]
    nodes = _nodes_of_neurons(events)
    for event in events:
        time = event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
        times[_group(event, nodes)] += time
    return {group: time / sum(times.values()) for group, time in times.items()}


def _ranges(module: nn.Module) -> Iterator[torch.utils.hooks.RemovableHandle]:
    """Hooks that put a range around each call of a module."""
    open_ranges: list[record_function] = []

    def enter(*_: object) -> None:
        open_ranges.append(record_function(IN_NEURON))
        open_ranges[-1].__enter__()

    def leave(*_: object) -> None:
        open_ranges.pop().__exit__(None, None, None)

    yield module.register_forward_pre_hook(enter)
    yield module.register_forward_hook(leave)


def _ancestry(event: torch.autograd.profiler_util.FunctionEvent) -> Iterator:
    while event is not None:
        yield event
        event = event.cpu_parent


def _nodes_of_neurons(events: Sequence) -> set[int]:
    """Numbers of the autograd nodes that operators within neurons made.

    An operator that makes no node has the number of the node that comes next, so the last operator of a number is the
    one that made it."""
    made: dict[int, bool] = {}
    for event in sorted(events, key=lambda e: e.time_range.start):
        above = [e.name for e in _ancestry(event)]
        if event.sequence_nr >= 0 and not any(name.startswith(BACKWARD) for name in above):
            made[event.sequence_nr] = IN_NEURON in above
    return {number for number, inside in made.items() if inside}


def _group(event: torch.autograd.profiler_util.FunctionEvent, nodes: set[int]) -> str:
    for group, parts in NAMES.items():
        if any(part in event.name.lower() for part in parts):
            return group
    for above in _ancestry(event):
        if above.name == IN_NEURON or (above.name.startswith(BACKWARD) and above.sequence_nr in nodes):
            return NEURON
    return REST
