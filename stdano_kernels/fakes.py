"""The shapes, dtypes and layouts of the compiled operators' results, for tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .constant import is_constant
from .settings import compute_dtype
from .spec import KERNELS

# Time steps between two saved states, as csrc/call.h has them: on the CPU, and on a device for float32 and float64.
CHECKPOINT_STEPS = 16
DEVICE_CHECKPOINT_STEPS = {torch.float32: 8, torch.float64: 1}


def checkpoint_distance(x: Tensor) -> int:
    return CHECKPOINT_STEPS if x.device.type == "cpu" else DEVICE_CHECKPOINT_STEPS[compute_dtype(x)]


def _empty_state(like: Tensor, dtype: torch.dtype) -> Tensor:
    if like.shape[0] == 0:
        return like.new_empty(like.shape[1:], dtype=dtype)
    return torch.empty_like(like.select(0, 0), dtype=dtype)


def forward(
    x: Tensor,
    state: list[Tensor],
    constants: list[Tensor],
    affine: Tensor | None,
    which: list[int],
    values: list[float],
    alpha: float,
    kernel: str,
    save_checkpoints: bool,
    return_state: bool,
    sequences: list[int],
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    states = len(KERNELS[kernel][0].states)
    dtype = compute_dtype(x)
    spikes = torch.empty_like(x)
    final = [_empty_state(spikes, dtype) for _ in range(states)] if return_state else []
    steps, neurons = x.shape[0], x[:1].numel() if x.shape[0] > 0 else x.new_empty(x.shape[1:]).numel()
    chunks = (steps - 1) // checkpoint_distance(x) if save_checkpoints and steps > 0 else 0
    if isinstance(chunks, torch.SymInt) and torch.compiler.is_exporting():
        chunks = torch.library.get_ctx().new_dynamic_size()  # else the program would hold for a few T alone
    checkpoints = x.new_empty(chunks, states, neurons, dtype=dtype)
    return spikes, final, [torch.empty_like(spikes) for _ in sequences], checkpoints


def backward(
    grad_spikes: Tensor,
    grad_state: list[Tensor],
    grad_sequences: list[Tensor],
    x: Tensor,
    state: list[Tensor],
    checkpoints: Tensor,
    constants: list[Tensor],
    affine: Tensor | None,
    *settings: Any,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    dtype = compute_dtype(x)
    grad_x = torch.empty_like(x[0] if is_constant(x) else x)
    like = torch.empty_like(x)
    per_neuron = [c.dim() == x.dim() - 1 and c.dim() > 0 and c.shape == x.shape[1:] for c in constants]
    return (
        grad_x,
        [_empty_state(like, dtype) for _ in state],
        [_empty_state(like, dtype) if p else torch.empty_like(c) for p, c in zip(per_neuron, constants, strict=True)],
        x.new_empty((0, 1) if affine is None else (2, affine.shape[1]), dtype=torch.float64),
    )


def _norm_forward(x: Tensor, state: list[Tensor], constants: list[Tensor], *rest: Any) -> tuple[Any, ...]:
    own = forward(x, state, constants, None, *rest[7:])
    numbers = [x.new_empty(n, x.shape[2], dtype=d) for n, d in ((3, compute_dtype(x)), (4, torch.float64))]
    return *own, *numbers


def _norm_backward(*given: Any) -> tuple[Any, ...]:
    x, affine = given[3], given[7]
    of_tensors = backward(*given[:7], None)[:3]
    return *of_tensors, *(x.new_empty(x.shape[2], dtype=affine.dtype) for _ in range(2))


def _mixture_forward(x: Tensor, weights: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    moments = x.new_empty((4, len(weights), x.shape[2]), dtype=torch.float64)
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.uint8), moments


def _mixture_backward(grad: Tensor, x: Tensor, codes: Tensor, moments: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(moments.shape[1], dtype=compute_dtype(x))


def _sums(count: int, x: Tensor) -> Tensor:
    return x.new_empty((count, x.shape[2]), dtype=torch.float64)


def _encode(x: Tensor, kernels: list[str], *settings: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=torch.uint8), _sums(len(kernels), x)


def _pack(x: Tensor, scale: int, planes: int) -> tuple[Tensor, Tensor, bool]:
    bits, groups = x.new_empty((planes, -(-len(x) // 8)), dtype=torch.uint8), -(-len(x) // 256)
    return bits, x.new_empty(0 if x.device.type == "cpu" else groups, dtype=torch.uint8), True


# What makes bits of spikes (csrc/bits.h).
BITS_OPERATORS: dict[str, Callable[..., Any]] = {
    "pack_spikes": _pack,
    "unpack_spikes": lambda bits, wrong, scale, like: like.new_empty(8 * bits.shape[1]),
}

# What the super neuron and BatchNorm are made of (csrc/channel_operators.h).
CHANNEL_OPERATORS: dict[str, Callable[..., Any]] = {
    "channel_sums": lambda x: _sums(2, x),
    "channel_affine": lambda grad, x, table: torch.empty_like(x),
    "channel_affine_": lambda grad, x, table: None,
    "super_neuron_encode": _encode,
    "super_neuron_decode": lambda codes, table, like: torch.empty_like(codes, dtype=like.dtype),
    "super_neuron_sums": lambda codes, grad, members: _sums(1 + members, codes),
    "super_neuron_backward": lambda grad, x, *rest: torch.empty_like(x),
    "norm_scan_forward": _norm_forward,
    "norm_scan_backward": _norm_backward,
    "super_neuron_forward": _mixture_forward,
    "super_neuron_gradients": _mixture_backward,
}
