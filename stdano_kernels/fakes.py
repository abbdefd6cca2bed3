"""The shapes, dtypes and layouts of the compiled operators' results, for tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .settings import compute_dtype

NEURONS = ("lif", "llif", "slif")
# Time steps between two saved states, as csrc/call.h has them: on the CPU, and on a device for float32 and float64.
CHECKPOINT_STEPS = 16
DEVICE_CHECKPOINT_STEPS = {torch.float32: 8, torch.float64: 4}


def _empty_state(like: Tensor, dtype: torch.dtype) -> Tensor:
    if like.shape[0] == 0:
        return like.new_empty(like.shape[1:], dtype=dtype)
    return torch.empty_like(like.select(0, 0), dtype=dtype)


def forward(name: str, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    has_adapt = name != "lif"
    save_checkpoints, return_state, return_v_seq = rest[-3:]
    dtype = compute_dtype(x)
    spikes = torch.empty_like(x)
    none = x.new_empty(0, dtype=dtype)
    v = _empty_state(spikes, dtype) if return_state else none
    adapt = torch.empty_like(v) if return_state and has_adapt else x.new_empty(0, dtype=dtype)
    v_seq = torch.empty_like(spikes) if return_v_seq else x.new_empty(0)
    steps, neurons = x.shape[0], x[:1].numel() if x.shape[0] > 0 else x.new_empty(x.shape[1:]).numel()
    distance = CHECKPOINT_STEPS if x.device.type == "cpu" else DEVICE_CHECKPOINT_STEPS[dtype]
    chunks = (steps - 1) // distance if save_checkpoints and steps > 0 else 0
    if isinstance(chunks, torch.SymInt) and torch.compiler.is_exporting():
        chunks = torch.library.get_ctx().new_dynamic_size()  # else the program would hold for a few T alone
    checkpoints = x.new_empty(chunks, 2 if has_adapt else 1, neurons, dtype=dtype)
    return spikes, v, adapt, v_seq, checkpoints


def backward(
    name: str,
    grad_spikes: Tensor,
    grad_v: Tensor | None,
    grad_adapt: Tensor | None,
    grad_v_seq: Tensor | None,
    x: Tensor,
    v: Tensor | None,
    adapt: Tensor | None,
    checkpoints: Tensor,
    tau: Tensor | None,
    v_threshold: Tensor | None,
    affine: Tensor | None,
    *settings: Any,
) -> tuple[Tensor, ...]:
    dtype = compute_dtype(x)
    grad_x = torch.empty_like(x)

    def none() -> Tensor:
        return x.new_empty(0, dtype=dtype)

    return (
        grad_x,
        none() if v is None else _empty_state(grad_x, dtype),
        none() if adapt is None else _empty_state(grad_x, dtype),
        none() if tau is None else torch.empty_like(tau),
        none() if v_threshold is None else torch.empty_like(v_threshold),
        x.new_empty((0, 1) if affine is None else (2, affine.shape[1]), dtype=torch.float64),
    )


def _sums(count: int, x: Tensor) -> Tensor:
    return x.new_empty((count, x.shape[2]), dtype=torch.float64)


def _encode(x: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=torch.uint8), _sums(3, x)


# What the super neuron and BatchNorm are made of (csrc/channel_operators.h).
CHANNEL_OPERATORS: dict[str, Callable[..., Any]] = {
    "channel_sums": lambda x: _sums(2, x),
    "channel_affine": lambda grad, x, table: torch.empty_like(x),
    "channel_affine_": lambda grad, x, table: None,
    "super_neuron_encode": _encode,
    "super_neuron_decode": lambda codes, table, like: torch.empty_like(codes, dtype=like.dtype),
    "super_neuron_sums": lambda codes, grad: _sums(4, codes),
    "super_neuron_backward": lambda grad, x, *rest: torch.empty_like(x),
}
