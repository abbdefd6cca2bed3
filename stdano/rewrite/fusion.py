"""Makes the BatchNorm -> neuron pairs of a model one kernel each, and undoes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..nodes.base import BaseNode
from ..nodes.link import channel_dimension, kernel_shape, link_of
from ..nodes.normalised import BatchNormNeuron, link, unlink, why_changed
from ..nodes.norms import SynchronisedBatchNorm2d
from .dataflow import Flow, traced, watched
from .inherit import is_spiking

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, SynchronisedBatchNorm2d)


@dataclass
class FusionReport:
    """What :func:`fuse` did; ``print`` it.

    Attributes:
        fused: names of norm and neuron of each pair.
        left: names of norms and neurons that stay as they were, each with the reason.
    """

    fused: list[tuple[str, str]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.fused)} fused"]
        lines += [f"  {norm} -> {neuron}" for norm, neuron in self.fused]
        lines += [f"{len(self.left)} left"] if self.left else []
        lines += [f"  {name}: {reason}" for name, reason in self.left]
        return "\n".join(lines)


def fuse(model: nn.Module, example_input: Any = None) -> FusionReport:
    """Makes every BatchNorm whose output goes into one of stdano's neurons, and nowhere else, part of that neuron's
    kernel, in place.

    The modules stay where they are: names, parameters, buffers, ``state_dict()``, optimisers, ``train()``, ``to()``
    and ``copy.deepcopy`` are not affected; :func:`unfuse` undoes it. The norm then passes its input on and the neuron
    normalises it, so results differ from before by rounding alone (:func:`stdano_kernels.bn_neuron`). Between the two
    the tensor may be reshaped, ``[T*B, C, H, W]`` to ``[T, B, C, H, W]``. In two respects a fused pair is better than
    before: checkpointing does not move running statistics twice, and SyncBatchNorm works on the CPU.

    Args:
        model: any module. Norms: BatchNorm1d, 2d, 3d and SyncBatchNorm of torch, SynchronisedBatchNorm2d and the
            BatchNorms of SpikingJelly; neurons: stdano's (:class:`stdano.LIFNode` and so on, those with a learned time
            constant, and classes made by :func:`stdano.node`). Others are left: subclasses of these, too, and
            instances with hooks or with a ``forward`` of their own.
        example_input: a tensor, or a tuple of arguments, for one run in eval mode (which resets the neurons). Without
            it ``torch.fx`` tells what goes where. Where that cannot trace a module, its largest traceable parts are
            looked at, each on the assumption that it is called as a whole; the run needs no such assumption. Both see
            one way through the model, the run the one that this input takes in eval mode.

    Returns:
        What was fused, and what was left and why.

    What takes the norm's output besides the neuron would find the norm's input there. A pair of which that is seen is
    left, also where an attribute of a module keeps the tensor (``self.current = self.bn(x)``); not seen are tensors
    that forward keeps elsewhere: in a global variable, a closure, an object of another kind.

    A fused pair computes the two apart, with the values of before, in calls in which fusing could be noticed: while one
    of them has hooks that were set later, global ones included, or another ``forward`` around its own; in
    ``torch.inference_mode``, where torch does not tell of changes in place; for an empty batch in training. (A forward
    hook of a neuron that reads its output alone may be marked by :func:`stdano.nodes.link.reads_output_alone`.) Under
    ``torch.compile`` and ``torch.export`` the norm passes a copy on, which Inductor removes again.

    It raises an error where the neuron runs without its norm, where the shape shows that something other
    than reshaping is between them, or where the tensor was changed in place there; and warns where the norm ran and
    the neuron did not.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    report = FusionReport()
    names = {module: name for name, module in model.named_modules()}
    changed: dict[nn.Module, str] = {}
    for module in names:
        if isinstance(module, BatchNormNeuron) and link_of(module[1]) is None and is_norm(module[0]):
            reason = why_changed(module[0], module[1], described(module[1], names))
            if reason is None:
                link(module[0], module[1], time_first=True)
            else:
                changed[module[0]] = reason
    neurons = {id(m._link): m for m in names if isinstance(m, BaseNode) and m._link is not None}
    pairs = {m: neurons[id(link_of(m))] for m in names if is_norm(m) and id(link_of(m)) in neurons}
    done = {*pairs.keys(), *pairs.values()}
    if any(module not in done and (is_norm(module) or is_spiking(module)) for module in names):
        flow = traced(model, _of_interest) if example_input is None else watched(model, _of_interest, example_input)
        for norm in [m for m in names if is_norm(m) and m not in done]:
            found = changed.get(norm) or _partner(norm, flow, names, by_run=example_input is not None)
            if isinstance(found, str):
                report.left.append((names[norm], found))
            else:
                link(norm, found)
                pairs[norm] = found
        for neuron in [m for m in names if is_spiking(m) and m not in pairs.values()]:
            report.left.append((names[neuron], _why_alone(neuron, flow, names)))
    report.fused = [(names[norm], names[neuron]) for norm, neuron in pairs.items()]
    return report


def unfuse(model: nn.Module) -> nn.Module:
    """Undoes :func:`fuse`, in place, also in every :class:`stdano.BatchNormNeuron`, and returns the model: norms and
    neurons each compute their own again. Parameters, buffers and the neurons' states stay as they are."""
    for module in model.modules():
        connection = link_of(module)
        if connection is not None:
            unlink(connection)
    return model


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm that can be fused."""
    kind = type(module)
    spikingjelly = kind.__module__.startswith("spikingjelly.") and kind.__name__ in [norm.__name__ for norm in _NORMS]
    return kind in _NORMS or (spikingjelly and isinstance(module, _BatchNorm))


def _of_interest(module: nn.Module) -> bool:
    return is_norm(module) or is_spiking(module) or isinstance(module, BatchNormNeuron)


def described(place: nn.Module | str, names: dict[nn.Module, str]) -> str:
    """A place of the data flow, for people."""
    return place if isinstance(place, str) else f"{names[place] or 'itself'} ({type(place).__name__})"


def _partner(norm: Any, flow: Flow, names: dict[nn.Module, str], by_run: bool) -> BaseNode | str:
    """The neuron behind a norm, or why it cannot be fused with one."""
    calls = flow.takers.get(norm)
    if not calls:
        if by_run:
            return "the example does not run it"
        return _untraced(names[norm], flow) or "forward does not run it"
    for takers in calls:
        if len(takers) != 1:
            listed = ", ".join(described(place, names) for place in takers)
            return f"its output has {len(takers)} uses: {listed}" if takers else "its output is not used"
    found = {takers[0] for takers in calls}
    if len(found) > 1:
        return f"it is shared, and its outputs go to {', '.join(sorted(described(place, names) for place in found))}"
    (neuron,) = found
    if not isinstance(neuron, BaseNode):
        if not isinstance(neuron, str) and type(neuron).__module__.startswith("spikingjelly."):
            return f"{described(neuron, names)} behind it is SpikingJelly's: call convert() first"
        return f"its output goes to {described(neuron, names)}, not to a neuron of stdano"
    others = sorted({described(place, names) for place in flow.makers[neuron] if place is not norm})
    if others:
        return f"{described(neuron, names)} behind it is shared, and has input from {', '.join(others)} as well"
    if neuron._link is not None:
        return f"{described(neuron, names)} behind it is already fused with another norm"
    changed = why_changed(norm, neuron, described(neuron, names))
    if changed:
        return changed
    order = [module for module in flow.calls if module in (norm, neuron)]
    if order != [norm, neuron] * (len(order) // 2):
        return f"it runs again before {described(neuron, names)} behind it has run"
    if getattr(norm, "step_mode", "s") == "m" and neuron.step_mode != "m":
        return f'it is in step_mode "m", but {described(neuron, names)} behind it in "{neuron.step_mode}"'
    for before, after in flow.shapes[neuron]:
        dimension = channel_dimension(norm, len(before))
        steps = (1, *after) if neuron.step_mode == "s" else after
        if kernel_shape(steps, norm.num_features, math.prod(before[dimension + 1 :])) is None:
            return f"its output {list(before)} becomes {list(after)} before {described(neuron, names)} behind it"
    return neuron


def _untraced(name: str, flow: Flow) -> str | None:
    """Why nothing is known of a module: the innermost part around it that cannot be traced."""
    around = [part for part in flow.errors if not part or name.startswith(f"{part}.")]
    return f"torch.fx cannot trace {flow.errors[max(around, key=len)]}: give an example_input" if around else None


def _why_alone(neuron: nn.Module, flow: Flow, names: dict[nn.Module, str]) -> str:
    if not isinstance(neuron, BaseNode):
        kind = type(neuron).__name__
        if type(neuron).__module__.startswith("spikingjelly."):
            return f"{kind} is SpikingJelly's: call convert() first"
        return f"{kind} is fused already, and takes no norm in front of it"
    makers = sorted({described(place, names) for place in flow.makers.get(neuron, [])})
    if not makers:
        return _untraced(names[neuron], flow) or "forward does not run it"
    return f"its input comes from {', '.join(makers)}"
