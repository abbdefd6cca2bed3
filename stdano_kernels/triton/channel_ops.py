"""The operators around channels: BatchNorm's passes and the super neuron's. Schemas and results are those of
csrc/channel_operators.h."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from ..checks import dense
from . import channels
from .common import CHECKPOINT_STEPS
from .finish import mixture_backward, mixture_forward
from .launch import Finish, launch
from .layout import FLOATS, Geometry, check_dtype, check_table, make_geometry, same_layout, with_layout_of
from .printed import Neuron, neuron_of, together

_MOST_MEMBERS = 8  # a code is a byte


def _members(kernels: list[str], values: list[float]) -> tuple[Neuron, tuple[tuple[float, ...], ...]]:
    """The neurons together, and the constants and alpha of each; ``values``: those of one after the other."""
    if not 1 <= len(kernels) <= _MOST_MEMBERS:
        raise ValueError(f"stdano: a super neuron has 1 to {_MOST_MEMBERS} neurons, got {len(kernels)}")
    neurons = [neuron_of(name) for name in kernels]
    ends = list(accumulate((neuron.constants + 1 for neuron in neurons), initial=0))
    if ends[-1] != len(values):
        raise ValueError(f"stdano: {len(kernels)} neurons have {ends[-1]} constants, got {len(values)}")
    return together(neurons), tuple(tuple(values[begin:end]) for begin, end in pairwise(ends))


def _input(name: str, x: Tensor, dtypes: tuple[torch.dtype, ...] = FLOATS) -> tuple[Tensor, Geometry]:
    check_dtype(name, x, dtypes)
    if x.dim() < 3:
        raise ValueError(f"stdano: {name} must have channels, [T, B, C, ...], got a tensor of shape {list(x.shape)}")
    x = dense(x)
    return x, make_geometry(x, x.shape[2])


def _sums(kernel: Any, g: Geometry, count: int, pointers: tuple[Any, ...], **settings: Any) -> Tensor:
    """So many sums over channels, float64 [count, C]."""
    sums = pointers[0].new_empty(count, g.channels, dtype=torch.float64)
    launch(kernel, g, pointers, tuple(sums), **settings)
    return sums


def channel_sums(x: Tensor) -> Tensor:
    """Sums of x [T, B, C, ...] and of x*x, float64 [2, C]."""
    x, g = _input("x", x)
    return _sums(channels.channel_sums, g, 2, (x,))


def channel_affine(grad: Tensor, x: Tensor, table: Tensor, out: Tensor | None = None) -> Tensor:
    """grad, like x [T, B, C, ...], and what a table, float32 [3, C], makes of x."""
    x, g = _input("x", x)
    check_table("table", table, 3, x)
    in_layout = with_layout_of(grad, x, "grad")
    if out is not None and in_layout is not out:
        raise ValueError("stdano: grad must have the layout of x where it is changed in place")
    out = torch.empty_like(x) if out is None else out
    launch(channels.channel_affine, g, (in_layout, x, table, out))
    return out


def channel_affine_(grad: Tensor, x: Tensor, table: Tensor) -> None:
    """The same in place."""
    channel_affine(grad, x, table, out=grad)


def super_neuron_encode(x: Tensor, kernels: list[str], values: list[float]) -> tuple[Tensor, Tensor]:
    """Codes like x [T, B, C, ...], uint8; counts, float64 [neurons, C]."""
    x, g = _input("x", x)
    codes = torch.empty_like(x, dtype=torch.uint8)
    neurons, constants = _members(kernels, values)
    return codes, _sums(channels.super_neuron_encode, g, len(kernels), (x, codes, constants), NEURONS=neurons)


def super_neuron_decode(codes: Tensor, table: Tensor, like: Tensor) -> Tensor:
    """y, in the layout of codes [T, B, C, ...] and the dtype of ``like``. table: float32 [1 + neurons, C]."""
    check_dtype("like", like)
    codes, g = _input("codes", codes, (torch.uint8,))
    check_table("table", table, len(table), codes)
    y = torch.empty_like(codes, dtype=like.dtype)
    launch(channels.super_neuron_decode, g, (codes, table, y), MEMBERS=len(table) - 1)
    return y


def super_neuron_sums(codes: Tensor, grad: Tensor, members: int) -> Tensor:
    """Sums of grad [T, B, C, ...], all of it and where each neuron fired, float64 [1 + members, C]."""
    check_dtype("grad", grad)
    codes, g = _input("codes", codes, (torch.uint8,))
    grad = with_layout_of(grad, codes, "grad", grad.dtype)
    return _sums(channels.super_neuron_sums, g, 1 + members, (codes, grad, None), MEMBERS=members)


def super_neuron_backward(
    grad: Tensor, x: Tensor, codes: Tensor, table: Tensor, kernels: list[str], values: list[float]
) -> Tensor:
    """The gradient of x [T, B, C, ...]; grad and codes like it, table: float32 [3*neurons, C]."""
    x, g = _input("x", x)
    grad = with_layout_of(grad, x, "grad")
    check_table("table", table, 3 * len(kernels), x)
    if codes.dtype != torch.uint8 or codes.shape != x.shape or not same_layout(codes, x) or codes.device != x.device:
        raise ValueError("stdano: codes must be those that the forward operator returned for x")
    grad_x = torch.empty_like(x)
    neurons, constants = _members(kernels, values)
    later = max((g.T - 1) // CHECKPOINT_STEPS - 1, 0)  # parts whose states are neither at rest nor computed last
    checkpoints = [x.new_empty(later, states, g.N, dtype=torch.float32) for states in neurons.states]
    pointers = (grad, x, codes, table, grad_x, tuple(checkpoints), constants)
    launch(channels.super_neuron_backward, g, pointers, backward=True, NEURONS=neurons)
    return grad_x


def super_neuron_forward(
    x: Tensor,
    weights: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    kernels: list[str],
    values: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """y and codes like x [T, B, C, ...]; moments, float64 [4, neurons, C]."""
    x, g = _input("x", x)
    members = len(kernels)
    codes, y = torch.empty_like(x, dtype=torch.uint8), torch.empty_like(x)
    table = x.new_empty(1 + members, g.channels, dtype=torch.float32)
    moments = x.new_empty(4, members, g.channels, dtype=torch.float64)
    own = dict(weights_ptr=weights, mean_ptr=mean, var_ptr=var, momentum=momentum, table_ptr=table, moments_ptr=moments)
    settings = dict(MEMBERS=members, TRAINING=training, EPS=eps)
    neurons, constants = _members(kernels, values)
    finish = Finish(mixture_forward, members, own | settings)
    launch(channels.super_neuron_encode, g, (x, codes, constants), finish=finish, NEURONS=neurons)
    launch(channels.super_neuron_decode, g, (codes, table, y), MEMBERS=members)
    return y, codes, moments


def super_neuron_gradients(
    grad: Tensor,
    x: Tensor,
    codes: Tensor,
    moments: Tensor,
    training: bool,
    kernels: list[str],
    values: list[float],
) -> tuple[Tensor, Tensor]:
    """The gradients of x [T, B, C, ...] and of the weights."""
    x, g = _input("x", x)
    grad = with_layout_of(grad, x, "grad")
    members = len(kernels)
    table = x.new_empty(3 * members, g.channels, dtype=torch.float32)
    grad_weights = x.new_empty(members, dtype=torch.float32)
    if x.numel() == 0:
        return torch.empty_like(x), grad_weights.zero_()
    ticket = x.new_empty(1, dtype=torch.int32)
    own = dict(
        moments_ptr=moments,
        table_ptr=table,
        of_weights_ptr=x.new_empty(members, g.channels, dtype=torch.float64),
        ticket_ptr=ticket,
        grad_weights_ptr=grad_weights,
    )
    finish = Finish(mixture_backward, 1 + members, own | dict(MEMBERS=members, TRAINING=training))
    launch(channels.super_neuron_sums, g, (codes, grad, ticket), finish=finish, MEMBERS=members)
    return super_neuron_backward(grad, x, codes, table, kernels, values), grad_weights


_OF_CHANNELS = (channel_sums, channel_affine, channel_affine_)
_OF_SUPER_NEURONS = (
    super_neuron_encode,
    super_neuron_decode,
    super_neuron_sums,
    super_neuron_backward,
    super_neuron_forward,
    super_neuron_gradients,
)
OPERATORS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (*_OF_CHANNELS, *_OF_SUPER_NEURONS)}
