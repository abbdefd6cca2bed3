"""The operators ``torch.ops.stdano_triton``: from tensors to launches. Schemas, with each argument's type, are those of
include/schemas.h, and results those of csrc/operators.h, but for float64, which these kernels do not compute.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import registration
from ..checks import dense
from .channel_ops import OPERATORS as CHANNEL_OPERATORS
from .common import CHECKPOINT_STEPS
from .launch import launch
from .layout import Geometry, check_dtype, check_table, empty_state, make_geometry, with_layout_of
from .printed import Neuron, neuron_of, together
from .scan import scan_backward, scan_forward
from .tuples import NUMBER, OF_CHANNELS, OF_NEURONS

_NAMESPACE = registration.NAMESPACES["triton"]
_SCHEMAS = Path(__file__).parent.parent / "include" / "schemas.h"
_NUMBER, _OF_CHANNELS, _OF_NEURONS = NUMBER.value, OF_CHANNELS.value, OF_NEURONS.value


class _Call(NamedTuple):
    """What both operators make of what they are given."""

    x: Tensor
    g: Geometry
    neuron: Neuron
    constants: tuple[float | Tensor, ...]  # and alpha
    kinds: tuple[int, ...]  # of these, see tuples.py

    @property
    def checkpoints(self) -> int:
        return (self.g.T - 1) // CHECKPOINT_STEPS if self.g.T > 0 else 0

    def states(self, tensors: list[Tensor], layout: Tensor, name: str) -> tuple[Tensor | None, ...]:
        """One of each state, or none; an empty one stands for none."""
        if len(tensors) not in (0, self.neuron.states):
            raise ValueError(f"stdano: the neuron has {self.neuron.states} states, got {len(tensors)}")
        return tuple(with_layout_of(t, layout, name) if t.numel() > 0 else None for t in tensors)

    def settings(self, sequences: Iterable[int]) -> dict[str, Any]:
        return dict(NEURONS=together([self.neuron]), KINDS=self.kinds, SEQUENCES=tuple(sequences))


def _call(x: Tensor, constants: list[Tensor], affine: Tensor | None, own: Sequence[Any]) -> _Call:
    """What is not as it has to be is refused. ``own``: registration.Call."""
    check_dtype("x", x)
    which, values, alpha, kernel = own[:4]
    neuron = neuron_of(kernel)
    if len(values) != neuron.constants or len(constants) != len(which):
        raise ValueError(f"stdano: the neuron has {neuron.constants} constants, got {len(values)}")
    channels = 1
    if affine is not None:
        check_table("affine", affine, 3, x)
        channels = x.shape[2]
    kinds = [_NUMBER] * (len(values) + 1)
    for j, t in zip(which, constants, strict=True):
        of_neurons = t.dim() > 0 and t.shape == x.shape[1:]
        of_channels = t.is_contiguous() and t.numel() in (1, x.shape[2] if x.dim() >= 3 else 1)
        if t.dtype != torch.float32 or t.device != x.device or not (of_neurons or of_channels):
            raise ValueError(
                "stdano: constants must be float32, on x's device, and one for each neuron, or contiguous with one "
                f"element or one for each channel (dimension 2 of x), got {t.dtype} {list(t.shape)} on {t.device}"
            )
        kinds[j] = _OF_NEURONS if of_neurons else _OF_CHANNELS
        channels = channels if of_neurons else max(channels, t.numel())
    x = dense(x)
    given: list[float | Tensor] = [*values, alpha]
    for j, t in zip(which, constants, strict=True):
        if kinds[j] == _OF_NEURONS:
            given[j] = with_layout_of(t, empty_state(x), "a constant")
        else:
            given[j] = t if t.numel() == channels else t.expand(channels).contiguous()
    return _Call(x, make_geometry(x, channels), neuron, tuple(given), tuple(kinds))


def forward(x: Tensor, state: list[Tensor], *given: Any) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Spikes, final states, sequences and checkpoints; those that are not asked for are empty."""
    constants, affine, *own, save_checkpoints, return_state, sequences = given
    call = _call(x, constants, affine, own)
    x, states = call.x, call.neuron.states
    layout = empty_state(x) if return_state or state else x.new_empty(0)
    initial = call.states(state, layout, "state")
    spikes = torch.empty_like(x)
    final = [layout if j == 0 else torch.empty_like(layout) for j in range(states if return_state else 0)]
    wanted = [torch.empty_like(x) for _ in sequences]
    saved = call.checkpoints if save_checkpoints else 0
    checkpoints = x.new_empty(saved, states, call.g.N, dtype=torch.float32)
    outputs = (spikes, tuple(final), tuple(wanted), checkpoints if saved else None)
    launch(scan_forward, call.g, (x, initial, *outputs, call.constants, affine), **call.settings(sequences))
    return spikes, final, wanted, checkpoints


def backward(grad_spikes: Tensor, *given: Any) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Gradients of x, of initial states and constants, and the sums for affine; empty for what was not a tensor."""
    grad_state, grad_sequences, x, state, checkpoints, constants, affine, *own = given
    call = _call(x, constants, affine, own)
    x, which, sequences = call.x, own[0], own[-1]
    layout = empty_state(x) if state or grad_state or _OF_NEURONS in call.kinds else x.new_empty(0)
    initial = call.states(state, layout, "state")
    of_state = call.states(grad_state, layout, "grad_state")
    of_spikes = with_layout_of(grad_spikes, x, "grad_spikes")
    there = [(j, t) for j, t in zip(sequences, grad_sequences, strict=True) if t.numel() > 0]
    of_sequences = tuple(with_layout_of(t, x, "grad_sequences") for _, t in there)
    if checkpoints.numel() != call.checkpoints * call.neuron.states * call.g.N or checkpoints.dtype != torch.float32:
        raise ValueError("stdano: checkpoints must be those that the forward operator returned")
    grad_x = torch.empty_like(x)
    grad_state0 = [torch.empty_like(layout) for _ in state]
    grad_constants = {
        j: torch.empty_like(layout if call.kinds[j] == _OF_NEURONS else t)
        for j, t in zip(which, constants, strict=True)
    }
    of_channels, of_neurons = (
        tuple(grad_constants[j] for j, own_kind in enumerate(call.kinds) if own_kind == kind)
        for kind in (_OF_CHANNELS, _OF_NEURONS)
    )
    affine_sums = x.new_empty((0, 1) if affine is None else (2, affine.shape[1]), dtype=torch.float64)
    inputs = (of_spikes, of_state, of_sequences, x, initial, checkpoints)
    pointers = (*inputs, grad_x, tuple(grad_state0), of_neurons, call.constants, affine)
    sums = (*of_channels, *affine_sums)
    launch(scan_backward, call.g, pointers, sums, backward=True, **call.settings(j for j, _ in there))
    return grad_x, grad_state0, list(grad_constants.values()), affine_sums


def _define(operators: dict[str, Any]) -> torch.library.Library:
    """The operators, with the schemas of the compiled ones, without whose library they work; implemented for CUDA
    tensors (ROCm's are torch's CUDA tensors too)."""
    library = torch.library.Library(_NAMESPACE, "DEF")
    for call in re.findall(r'm\.def\(((?:\s*"[^"]*")+)\)', _SCHEMAS.read_text()):
        schema = "".join(re.findall(r'"([^"]*)"', call))
        library.define(schema)
        name = schema.partition("(")[0]
        library.impl(name, operators[name], "CUDA")
    return library


# The operators exist as long as this does.
_LIBRARY = _define({"scan_forward": forward, "scan_backward": backward, **CHANNEL_OPERATORS})
registration.register(_NAMESPACE)  # here, where the lock of the import sees to it that it happens once
