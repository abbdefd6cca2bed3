"""Launchers of the operators around channels: BatchNorm's passes and the super neuron's. Schemas and results are those
of csrc/ops.cpp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..surrogate import SURROGATES
from .channels import channel_affine, channel_sums
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
    vector,
)
from .layout import Geometry, dense, in_layout_of, is_dense, make_geometry, same_layout, with_layout_of
from .super_backward import super_neuron_backward
from .super_neuron import super_neuron_decode, super_neuron_encode, super_neuron_sums


class _Settings(NamedTuple):
    """A super neuron's settings, in the order of the schema."""

    neurons: int
    tau: float
    v_threshold: float
    v_reset: float | None
    slif_v_reset: float | None
    gamma: float
    beta: float
    tau_min: float
    linear_decay: bool
    decay_input: bool
    surrogate: int
    alpha: float
    detach_reset: bool
    detach_adapt: bool

    def arguments(self) -> dict[str, Any]:
        """What encode and backward have in common."""
        if not 0 < self.neurons < 8:
            raise ValueError(f"stdano: neurons must be a set of bits, 1 to 7, got {self.neurons}")
        return dict(
            tau=self.tau,
            v_threshold=self.v_threshold,
            r=0.0 if self.v_reset is None else self.v_reset,
            slif_r=0.0 if self.slif_v_reset is None else self.slif_v_reset,
            gamma=self.gamma,
            beta=self.beta,
            tau_min=self.tau_min,
            LIF=self.neurons & 1 != 0,
            LLIF=self.neurons & 2 != 0,
            SLIF=self.neurons & 4 != 0,
            SOFT_RESET=self.v_reset is None,
            SLIF_SOFT_RESET=self.slif_v_reset is None,
            LINEAR_DECAY=self.linear_decay,
            DECAY_INPUT=self.decay_input,
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
        add_up(partials, slabs, sums)
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
    *settings: Any,
) -> tuple[Tensor, Tensor]:
    """Codes like x, uint8; counts, float64 [3, C]."""
    check_dtype("x", x)
    x = dense(x)
    g = _geometry(x)
    codes = torch.empty_like(x, dtype=torch.uint8)
    tensors = dict(x_ptr=x, codes_ptr=codes)
    counts = _sum(super_neuron_encode, g, x, 3, {**tensors, **_Settings(*settings).arguments()})
    return codes, counts


def decode(
    codes: Tensor,  # uint8 [T, B, C, ...]
    table: Tensor,  # float32 [4, C]
    like: Tensor,
) -> Tensor:
    """y, codes' layout, like's dtype."""
    check_dtype("like", like)
    _check_codes(codes)
    g = _geometry(codes, "codes")
    check_table("table", table, 4, codes)
    y = torch.empty_like(codes, dtype=like.dtype)
    tensors = dict(codes_ptr=codes, table_ptr=table, y_ptr=y)
    _walk(super_neuron_decode, g, {**tensors, **channel_place(g), **COMPILER})
    return y


def sums_of_codes(
    codes: Tensor,  # uint8 [T, B, C, ...]
    grad: Tensor,
) -> Tensor:
    """Sums of grad, all of it and where each neuron fired, float64 [4, C]."""
    check_dtype("grad", grad)
    _check_codes(codes)
    g = _geometry(codes, "codes")
    grad = in_layout_of(grad, codes, "grad")
    return _sum(super_neuron_sums, g, codes, 4, dict(codes_ptr=codes, grad_ptr=grad))


def backward(
    grad: Tensor,  # like x
    x: Tensor,  # [T, B, C, ...]
    codes: Tensor,  # uint8 [T, B, C, ...]
    table: Tensor,  # float32 [9, C]
    *rest: Any,
) -> Tensor:
    """The gradient of x."""
    settings = _Settings(*rest)
    check_dtype("x", x)
    x = dense(x)
    g = _geometry(x)
    grad = with_layout_of(grad, x, "grad")
    check_table("table", table, 9, x)
    if codes.dtype != torch.uint8 or codes.shape != x.shape or not same_layout(codes, x) or codes.device != x.device:
        raise ValueError("stdano: codes must be those that the forward operator returned for x")
    grad_x = torch.empty_like(x)
    if x.numel() > 0:
        with device_of(x):
            super_neuron_backward[blocks(g.N, THREADS)](
                grad_ptr=grad,
                x_ptr=x,
                codes_ptr=codes,
                table_ptr=table,
                gx_ptr=grad_x,
                **settings.arguments(),
                **place(g),
                **channel_place(g),
                alpha=settings.alpha,
                SURROGATE=SURROGATES[settings.surrogate],
                DETACH_RESET=settings.detach_reset,
                DETACH_ADAPT=settings.detach_adapt,
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
