"""Launchers of the operators around channels: BatchNorm's passes and the super neuron's. Schemas and results are those
of csrc/ops.cpp."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .channels import channel_affine, channel_sums
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
from .layout import Geometry, dense, in_layout_of, is_dense, make_geometry, same_layout, with_layout_of
from .printed import neuron_of
from .super_neuron import super_neuron_backward, super_neuron_decode, super_neuron_encode, super_neuron_sums

_MOST_MEMBERS = 8  # a code is a byte


def _check_members(count: int) -> None:
    if not 1 <= count <= _MOST_MEMBERS:
        raise ValueError(f"stdano: a super neuron has 1 to {_MOST_MEMBERS} neurons, got {count}")


def _members(kernels: list[str], values: list[float]) -> dict[str, Any]:
    """The kernel arguments that say which neurons there are; ``values``: the constants of one after the other."""
    _check_members(len(kernels))
    neurons = [neuron_of(name) for name in kernels]
    ends = list(accumulate(neuron.constants for neuron in neurons))
    if ends[-1] != len(values):
        raise ValueError(f"stdano: {len(kernels)} neurons have {ends[-1]} constants, got {len(values)}")
    return dict(
        constants=tuple(tuple(values[end - n.constants : end]) for n, end in zip(neurons, ends, strict=True)),
        DERIVE=tuple(n.derive for n in neurons),
        REST=tuple(n.rest for n in neurons),
        STEP=tuple(n.step for n in neurons),
        **COMPILER,
    )


def _geometry(x: Tensor, name: str = "x") -> Geometry:
    if x.dim() < 3:
        raise ValueError(f"stdano: {name} must have channels, [T, B, C, ...], got a tensor of shape {list(x.shape)}")
    return make_geometry(x, x.shape[2])


def _check_codes(codes: Tensor) -> None:
    if codes.dtype != torch.uint8 or not is_dense(codes):
        raise ValueError("stdano: codes must be dense uint8")


def _walk(kernel: Any, g: Geometry, arguments: dict[str, Any]) -> None:
    """A kernel of which a thread serves a few neurons, if there are any."""
    tensors = [t for t in arguments.values() if isinstance(t, Tensor)]
    width = vector(g, *tensors)
    if g.N > 0 and g.T > 0:
        with device_of(tensors[0]):
            kernel[blocks(g.N, THREADS * width)](**arguments, **place(g), VECTOR=width, BLOCK=THREADS * width)


def _sum(kernel: Any, g: Geometry, x: Tensor, count: int, arguments: dict[str, Any]) -> Tensor:
    """A kernel that takes so many sums over channels, and these, float64 [count, C]."""
    sums = x.new_empty(count, x.shape[2], dtype=torch.float64)
    if x.numel() == 0:
        return sums.zero_()
    slabs = make_slabs(g, True)
    partials = x.new_empty(count, slabs.slabs, slabs.columns, dtype=torch.float64)
    tensors = [t for t in arguments.values() if isinstance(t, Tensor)]
    width = vector(g, *tensors) if slabs.columns % VECTOR == 0 else 1
    with device_of(x):
        kernel[blocks(slabs.entries, THREADS * width)](
            **{**COMPILER, **arguments},
            partial_ptr=partials,
            **slabs._asdict(),
            **place(g),
            VECTOR=width,
            BLOCK=THREADS * width,
        )
        add_up(partials, slabs, x.shape[2], (), sums)
    return sums


def sums_of_channels(x: Tensor) -> Tensor:  # [T, B, C, ...]
    """Sums of x and of x*x, float64 [2, C]."""
    check_dtype("x", x)
    x = dense(x)
    g = _geometry(x)
    return _sum(channel_sums, g, x, 2, dict(x_ptr=x))


def affine_of_channels(
    grad: Tensor,  # like x
    x: Tensor,  # [T, B, C, ...]
    table: Tensor,  # float32 [3, C]
) -> Tensor:
    check_dtype("x", x)
    x = dense(x)
    out = torch.empty_like(x)
    _affine_into(out, with_layout_of(grad, x, "grad"), x, table)
    return out


def affine_of_channels_(grad: Tensor, x: Tensor, table: Tensor) -> None:
    """The same in place."""
    check_dtype("x", x)
    x = dense(x)
    if with_layout_of(grad, x, "grad") is not grad:
        raise ValueError("stdano: grad must have the layout of x where it is changed in place")
    _affine_into(grad, grad, x, table)


def _affine_into(out: Tensor, grad: Tensor, x: Tensor, table: Tensor) -> None:
    g = _geometry(x)
    check_table("table", table, 3, x)
    tensors = dict(grad_ptr=grad, x_ptr=x, table_ptr=table, out_ptr=out)
    _walk(channel_affine, g, {**tensors, **channel_place(g), **COMPILER})


def encode(
    x: Tensor,  # [T, B, C, ...]
    kernels: list[str],
    values: list[float],
    alpha: float,
) -> tuple[Tensor, Tensor]:
    """Codes like x, uint8; counts, float64 [neurons, C]."""
    check_dtype("x", x)
    x = dense(x)
    g = _geometry(x)
    codes = torch.empty_like(x, dtype=torch.uint8)
    arguments = dict(x_ptr=x, codes_ptr=codes, **_members(kernels, values), **steps_of(g.T, LOADED_STEPS))
    counts = _sum(super_neuron_encode, g, x, len(kernels), arguments)
    return codes, counts


def decode(
    codes: Tensor,  # uint8 [T, B, C, ...]
    table: Tensor,  # float32 [1 + neurons, C]
    like: Tensor,
) -> Tensor:
    """y, codes' layout, like's dtype."""
    check_dtype("like", like)
    _check_codes(codes)
    g = _geometry(codes, "codes")
    members = table.shape[0] - 1
    _check_members(members)
    check_table("table", table, 1 + members, codes)
    y = torch.empty_like(codes, dtype=like.dtype)
    tensors = dict(codes_ptr=codes, table_ptr=table, y_ptr=y)
    _walk(super_neuron_decode, g, {**tensors, "MEMBERS": members, **channel_place(g), **COMPILER})
    return y


def sums_of_codes(
    codes: Tensor,  # uint8 [T, B, C, ...]
    grad: Tensor,
    members: int,
) -> Tensor:
    """Sums of grad, all of it and where each neuron fired, float64 [1 + members, C]."""
    check_dtype("grad", grad)
    _check_codes(codes)
    _check_members(members)
    g = _geometry(codes, "codes")
    grad = in_layout_of(grad, codes, "grad")
    return _sum(super_neuron_sums, g, codes, 1 + members, dict(codes_ptr=codes, grad_ptr=grad, MEMBERS=members))


def backward(
    grad: Tensor,  # like x
    x: Tensor,  # [T, B, C, ...]
    codes: Tensor,  # uint8 [T, B, C, ...]
    table: Tensor,  # float32 [3*neurons, C]
    kernels: list[str],
    values: list[float],
    alpha: float,
) -> Tensor:
    """The gradient of x."""
    check_dtype("x", x)
    x = dense(x)
    g = _geometry(x)
    grad = with_layout_of(grad, x, "grad")
    check_table("table", table, 3 * len(kernels), x)
    if codes.dtype != torch.uint8 or codes.shape != x.shape or not same_layout(codes, x) or codes.device != x.device:
        raise ValueError("stdano: codes must be those that the forward operator returned for x")
    grad_x = torch.empty_like(x)
    members = _members(kernels, values)
    if x.numel() > 0:
        neurons = [neuron_of(name) for name in kernels]
        with device_of(x):
            super_neuron_backward[blocks(g.N, THREADS)](
                grad_ptr=grad,
                x_ptr=x,
                codes_ptr=codes,
                table_ptr=table,
                gx_ptr=grad_x,
                alpha=alpha,
                **members,
                ADJOINT=tuple(n.adjoint for n in neurons),
                LAST_ADJOINT=tuple(n.last_adjoint for n in neurons),
                **steps_of(g.T, CHECKPOINT_STEPS),
                **place(g),
                **channel_place(g),
                BLOCK=THREADS,
            )
    return grad_x


OPERATORS: dict[str, Callable] = {
    "super_neuron_encode": encode,
    "super_neuron_decode": decode,
    "super_neuron_sums": sums_of_codes,
    "super_neuron_backward": backward,
    "channel_sums": sums_of_channels,
    "channel_affine": affine_of_channels,
    "channel_affine_": affine_of_channels_,
}
