"""The operators ``torch.ops.stdano_triton``: from tensors to launches. Schemas and results are those of
csrc/operators.h, but for float64, which these kernels do not compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import registration
from .channel_ops import OPERATORS as CHANNEL_OPERATORS
from .common import CHECKPOINT_STEPS, LOADED_STEPS
from .launch import (
    COMPILER,
    THREADS,
    VECTOR,
    add_up,
    blocks,
    channel_place,
    check_dtype,
    check_table,
    device_of,
    make_slabs,
    place,
    steps_of,
    vector,
)
from .layout import Geometry, dense, empty_state, make_geometry, with_layout_of
from .printed import Neuron, neuron_of
from .scan import scan_backward, scan_forward
from .schema import NAMESPACE, define
from .tuples import CHANNEL, NEURON, NUMBER

_NUMBER, _CHANNEL, _NEURON = NUMBER.value, CHANNEL.value, NEURON.value


class _Constants(NamedTuple):
    """A neuron's constants as kernels take them."""

    given: tuple[float | Tensor, ...]
    kinds: tuple[int, ...]

    def of_neurons(self) -> list[Any]:
        return [value for value, kind in zip(self.given, self.kinds, strict=True) if kind == _NEURON]


def _is_per_neuron(t: Tensor, x: Tensor) -> bool:
    return t.dim() > 0 and t.shape == x.shape[1:]


def _channels(x: Tensor, constants: Sequence[Tensor], affine: Tensor | None) -> int:
    """The channels by which constants differ, 1 for none; what is not as it has to be is refused."""
    check_dtype("x", x)
    if x.dim() < 1:
        raise ValueError("stdano: x must have a time dimension, [T, ...]; got a tensor of shape ()")
    channels = 1
    if affine is not None:
        check_table("affine", affine, 3, x)
        channels = x.shape[2]
    for t in constants:
        if t.dtype != torch.float32 or t.device != x.device:
            raise ValueError(
                f"stdano: constants must be float32, on x's device, {x.device}, got {t.dtype} on {t.device}"
            )
        if _is_per_neuron(t, x):
            continue
        if not t.is_contiguous() or (t.numel() != 1 and (x.dim() < 3 or t.numel() != x.shape[2])):
            raise ValueError(
                "stdano: constants must be contiguous and have one element, one for each channel (dimension 2 of x), "
                f"or one for each neuron, got shape {list(t.shape)} with x of shape {list(x.shape)}"
            )
        channels = max(channels, t.numel())
    return channels


def _constants(
    neuron: Neuron, x: Tensor, tensors: list[Tensor], which: list[int], values: list[float], g: Geometry
) -> _Constants:
    if len(values) != neuron.constants or len(tensors) != len(which):
        raise ValueError(f"stdano: the neuron has {neuron.constants} constants, got {len(values)}")
    given: list[float | Tensor] = list(values)
    kinds = [_NUMBER] * len(values)
    for j, t in zip(which, tensors, strict=True):
        kinds[j] = _NEURON if _is_per_neuron(t, x) else _CHANNEL
        if kinds[j] == _NEURON:
            given[j] = with_layout_of(t, empty_state(x), "a constant")
        else:
            given[j] = t if t.numel() == g.channels else t.expand(g.channels).contiguous()
    return _Constants(tuple(given), tuple(kinds))


def _tensors_there(tensors: list[Tensor], like: Tensor, name: str) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Those that are there, in the layout of ``like``, and their numbers; an empty one stands for none."""
    there = [j for j, t in enumerate(tensors) if t.numel() > 0]
    return tuple(with_layout_of(tensors[j], like, name) for j in there), tuple(there)


def forward(
    x: Tensor,  # [T, ...]
    state: list[Tensor],  # [...] float32 each
    constants: list[Tensor],
    affine: Tensor | None,  # float32 [3, C]
    which: list[int],
    values: list[float],
    alpha: float,
    kernel: str,
    save_checkpoints: bool,
    return_state: bool,
    sequences: list[int],
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Spikes, final states, sequences and checkpoints; those that are not asked for are empty."""
    neuron = neuron_of(kernel)
    channels = _channels(x, constants, affine)
    x = dense(x)
    g = make_geometry(x, channels)
    own = _constants(neuron, x, constants, which, values, g)
    layout = empty_state(x) if return_state or state else x.new_empty(0)
    state = [with_layout_of(t, layout, "state") for t in state]
    spikes = torch.empty_like(x)
    final = [layout if j == 0 else torch.empty_like(layout) for j in range(neuron.states if return_state else 0)]
    wanted = [torch.empty_like(x) for _ in sequences]
    saved = (g.T - 1) // CHECKPOINT_STEPS if save_checkpoints and g.T > 0 else 0
    checkpoints = x.new_empty(saved, neuron.states, g.N, dtype=torch.float32)
    if g.N > 0 and (g.T > 0 or return_state):
        aligned = (x, spikes, *state, *final, *wanted, *own.of_neurons())
        with device_of(x):
            scan_forward[blocks(g.N, THREADS * VECTOR)](
                x_ptr=x,
                state_ptrs=tuple(state),
                spikes_ptr=spikes,
                final_ptrs=tuple(final),
                sequence_ptrs=tuple(wanted),
                checkpoints_ptr=checkpoints if saved else None,
                constants=own.given,
                affine_ptr=affine,
                alpha=alpha,
                DERIVE=neuron.derive,
                REST=neuron.rest,
                STEP=neuron.step,
                KINDS=own.kinds,
                SEQUENCES=tuple(sequences),
                **steps_of(g.T, LOADED_STEPS),
                **place(g),
                **channel_place(g),
                VECTOR=vector(g, *aligned),
                BLOCK=THREADS * VECTOR,
                **COMPILER,
            )
    return spikes, final, wanted, checkpoints


def backward(
    grad_spikes: Tensor,  # [T, ...]
    grad_state: list[Tensor],  # [...] float32 each
    grad_sequences: list[Tensor],  # [T, ...] each
    x: Tensor,
    state: list[Tensor],
    checkpoints: Tensor,
    constants: list[Tensor],
    affine: Tensor | None,
    which: list[int],
    values: list[float],
    alpha: float,
    kernel: str,
    sequences: list[int],
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Gradients of x, of initial states and constants, and the sums for affine; empty for what was not a tensor."""
    neuron = neuron_of(kernel)
    channels = _channels(x, constants, affine)
    x = dense(x)
    g = make_geometry(x, channels)
    own = _constants(neuron, x, constants, which, values, g)
    grad_spikes = with_layout_of(grad_spikes, x, "grad_spikes")
    of_sequences, there = _tensors_there(grad_sequences, x, "grad_sequences")
    layout = empty_state(x) if state or grad_state or own.of_neurons() else x.new_empty(0)
    state = [with_layout_of(t, layout, "state") for t in state]
    of_state, grads = _tensors_there(grad_state, layout, "grad_state")
    saved = (g.T - 1) // CHECKPOINT_STEPS if g.T > 0 else 0
    if checkpoints.numel() != saved * neuron.states * g.N or checkpoints.dtype != torch.float32:
        raise ValueError("stdano: checkpoints must be those that the forward operator returned")

    grad_x = torch.empty_like(x)
    grad_state0 = [torch.empty_like(layout) for _ in state]
    grad_constants = [
        torch.empty_like(layout) if own.kinds[j] == _NEURON else torch.empty_like(t)
        for j, t in zip(which, constants, strict=True)
    ]
    affine_sums = x.new_empty((0, 1) if affine is None else (2, affine.shape[1]), dtype=torch.float64)
    if g.N == 0:
        for t in (*grad_constants, affine_sums):
            t.zero_()
        return grad_x, grad_state0, grad_constants, affine_sums

    by_number = dict(zip(which, grad_constants, strict=True))
    of_channels, of_neurons = (
        [by_number[j] for j, own_kind in enumerate(own.kinds) if own_kind == kind] for kind in (_CHANNEL, _NEURON)
    )
    totals = len(of_channels) + len(affine_sums)
    slabs = make_slabs(g, totals > 0)
    partials = x.new_empty(totals, slabs.slabs, slabs.columns, dtype=torch.float64) if totals else None
    with device_of(x):
        scan_backward[blocks(slabs.entries, THREADS)](
            gs_ptr=grad_spikes,
            grad_ptrs=of_state,
            grad_sequence_ptrs=of_sequences,
            x_ptr=x,
            state_ptrs=tuple(state),
            checkpoints_ptr=checkpoints,
            gx_ptr=grad_x,
            initial_ptrs=tuple(grad_state0),
            grad_constant_ptrs=tuple(of_neurons),
            partial_ptr=partials,
            constants=own.given,
            affine_ptr=affine,
            alpha=alpha,
            **slabs._asdict(),
            DERIVE=neuron.derive,
            REST=neuron.rest,
            STEP=neuron.step,
            ADJOINT=neuron.adjoint,
            LAST_ADJOINT=neuron.last_adjoint,
            FINISH=neuron.finish,
            KINDS=own.kinds,
            RESTS=neuron.rests,
            GRADS=grads,
            SEQUENCES=tuple(sequences[j] for j in there),
            LEARNED=len(which) > 0,
            TOTALS=totals,
            **steps_of(g.T, CHECKPOINT_STEPS),
            **place(g),
            **channel_place(g),
            BLOCK=THREADS,
            **COMPILER,
        )
        if partials is not None:
            add_up(partials, slabs, g.channels, of_channels, None if affine is None else affine_sums)
    return grad_x, grad_state0, grad_constants, affine_sums


# The operators exist as long as this does.
_LIBRARY = define({"scan_forward": forward, "scan_backward": backward, **CHANNEL_OPERATORS})
registration.register(NAMESPACE)  # here, where the lock of the import sees to it that it happens once
