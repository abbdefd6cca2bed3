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
from ..constant import is_constant
from . import finish as finishing
from .bits import OPERATORS as BITS_OPERATORS
from .channel_ops import OPERATORS as CHANNEL_OPERATORS
from .channel_ops import channel_affine
from .channels import channel_sums
from .common import CHECKPOINT_STEPS
from .launch import Finish, launch
from .layout import Geometry, check_dtype, check_table, dense_steps, empty_state, make_geometry, with_layout_of
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
        own = dict(NEURONS=together([self.neuron]), KINDS=self.kinds, SEQUENCES=tuple(sequences))
        return own | dict(constant=is_constant(self.x))


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
    x = dense_steps(x)
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
    x, affine = given[2], given[6]
    affine_sums = x.new_empty((0, 1) if affine is None else (2, affine.shape[1]), dtype=torch.float64)
    return *_backward(grad_spikes, *given, affine_sums=tuple(affine_sums)), affine_sums


def _backward(
    grad_spikes: Tensor, *given: Any, affine_sums: Sequence[Tensor] = (), finish: Finish | None = None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """``finish``: what becomes of the sums for affine instead."""
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
    grad_x = torch.empty_like(x[0] if is_constant(x) else x)
    grad_state0 = [torch.empty_like(layout) for _ in state]
    grad_constants = {
        j: torch.empty_like(layout if call.kinds[j] == _OF_NEURONS else t)
        for j, t in zip(which, constants, strict=True)
    }
    of_channels, of_neurons = (
        tuple(grad_constants[j] for j, own_kind in enumerate(call.kinds) if own_kind == kind)
        for kind in (_OF_CHANNELS, _OF_NEURONS)
    )
    inputs = (of_spikes, of_state, of_sequences, x, initial, checkpoints)
    pointers = (*inputs, grad_x, tuple(grad_state0), of_neurons, call.constants, affine)
    sums = (*of_channels, *affine_sums)
    settings = call.settings(j for j, _ in there)
    launch(scan_backward, call.g, pointers, sums, finish=finish, backward=True, **settings)
    return grad_x, grad_state0, list(grad_constants.values())


def norm_scan_forward(
    x: Tensor,
    state: list[Tensor],
    constants: list[Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *own: Any,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor, Tensor]:
    """What ``forward`` returns, affine, and moments, float64 [4, C]."""
    check_dtype("x", x)
    x = dense_steps(x)
    channels = x.shape[2]
    affine = x.new_empty(3, channels, dtype=torch.float32)
    moments = x.new_empty(4, channels, dtype=torch.float64)
    numbers = dict(weight_ptr=weight, bias_ptr=bias, mean_ptr=mean, var_ptr=var, momentum=momentum)
    numbers |= dict(affine_ptr=affine, moments_ptr=moments, TRAINING=training, EPS=eps)
    own_x = _once(x)
    g = make_geometry(own_x, channels)
    numbers |= dict(copies=x.shape[0] // max(own_x.shape[0], 1))
    finish = Finish(finishing.norm_forward, 2 if training else 0, numbers)
    if training:
        launch(channel_sums, g, (own_x,), finish=finish)
    else:
        finish.run(g, None, 0, 0, x.device)
    return *forward(x, state, constants, affine, *own), affine, moments


def norm_scan_backward(
    *given: Any,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor]:
    """Gradients of x, of initial states and constants, and of weight and bias."""
    before, (affine, moments), own = given[:7], given[7:9], given[9:]
    x = dense_steps(given[3])
    table = x.new_empty(3, x.shape[2], dtype=torch.float32)
    of_weight, of_bias = (x.new_empty(x.shape[2], dtype=torch.float32) for _ in range(2))
    arguments = dict(affine_ptr=affine, moments_ptr=moments, table_ptr=table)
    own_x = _once(x)
    arguments |= dict(of_weight_ptr=of_weight, of_bias_ptr=of_bias, count=own_x.numel() // max(x.shape[2], 1))
    out = _backward(*before, affine, *own, finish=Finish(finishing.norm_backward, 2, arguments))
    grad_x = out[0].view(own_x.shape)
    channel_affine(grad_x, own_x, table, out=grad_x)
    return *out, of_weight, of_bias


def _once(x: Tensor) -> Tensor:
    """Of constant input one step [1, ...]."""
    return x[:1] if is_constant(x) else x


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
_OPERATORS = {"scan_forward": forward, "scan_backward": backward, **CHANNEL_OPERATORS, **BITS_OPERATORS}
_LIBRARY = _define({**_OPERATORS, "norm_scan_forward": norm_scan_forward, "norm_scan_backward": norm_scan_backward})
registration.register(_NAMESPACE)  # here, where the lock of the import sees to it that it happens once
