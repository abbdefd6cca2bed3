"""The operators ``torch.ops.stdano_triton``: from tensors to launches. Schemas and results are those of csrc/ops.cpp,
but for the distance of checkpoints (``common.CHECKPOINT_STEPS``) and float64, which these kernels do not compute.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import registration
from ..surrogate import SURROGATES
from .channel_ops import OPERATORS as CHANNEL_OPERATORS
from .common import CHECKPOINT_STEPS
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
from .layout import Geometry, dense, empty_state, make_geometry, with_layout_of
from .lif import lif_backward, lif_forward
from .llif import llif_backward, llif_forward
from .schema import NAMESPACE, define
from .slif import slif_backward, slif_forward

# The name of `adapt` in a neuron's equations.
_ADAPT = {"lif": None, "llif": "theta", "slif": "p"}
_FORWARD_KERNELS = {"lif": lif_forward, "llif": llif_forward, "slif": slif_forward}
_BACKWARD_KERNELS = {"lif": lif_backward, "llif": llif_backward, "slif": slif_backward}

# Registers of a backward thread (see _register_limit).
_REGISTERS = 64
_MORE_REGISTERS = {"llif": 96, "slif": 80}


class _Settings(NamedTuple):
    """A call's settings from ``tau`` on, in the order of the schema."""

    tau: Tensor | None
    v_threshold: Tensor | None
    affine: Tensor | None
    tau_value: float
    v_threshold_value: float
    v_reset: float | None
    rate: float
    tau_min: float
    linear_decay: bool
    decay_input: bool
    surrogate: int
    alpha: float
    soft_spike: bool
    detach_reset: bool
    detach_adapt: bool


def _check(x: Tensor, settings: _Settings) -> None:
    check_dtype("x", x)
    if x.dim() < 1:
        raise ValueError("stdano: x must have a time dimension, [T, ...]; got a tensor of shape ()")
    for name, t in (("tau", settings.tau), ("v_threshold", settings.v_threshold)):
        if t is None:
            continue
        if t.dtype != torch.float32 or not t.is_contiguous() or t.device != x.device:
            raise ValueError(f"stdano: {name} must be contiguous, float32, on x's device, {x.device}")
        if t.numel() != 1 and (x.dim() < 3 or t.numel() != x.shape[2]):
            raise ValueError(
                f"stdano: {name} must have one element, or one for each channel (dimension 2 of x), got {t.numel()} "
                f"with x of shape {list(x.shape)}"
            )
    if settings.affine is not None:
        check_table("affine", settings.affine, 3, x)


def _channels(settings: _Settings) -> int:
    sizes = [1 if t is None else t.numel() for t in settings[:2]]
    return max(*sizes, 1 if settings.affine is None else settings.affine.shape[1])


def _expanded(t: Tensor | None, value: float, channels: int) -> Tensor | float:
    """What kernels take as a constant: a number, or a tensor of as many elements as there are channels."""
    if t is None:
        return value
    return t if t.numel() == channels else t.detach().expand(channels).contiguous()


def _arguments(neuron: str, settings: _Settings, g: Geometry) -> dict[str, Any]:
    """The kernel arguments that forward and backward have in common."""
    own: dict[str, dict[str, float]] = {
        "lif": {},
        "llif": {"gamma": settings.rate},
        "slif": {"beta": settings.rate, "tau_min": settings.tau_min},
    }
    return dict(
        tau=_expanded(settings.tau, settings.tau_value, g.channels),
        v_threshold=_expanded(settings.v_threshold, settings.v_threshold_value, g.channels),
        affine_ptr=settings.affine,
        r=0.0 if settings.v_reset is None else settings.v_reset,
        alpha=settings.alpha,
        SOFT_RESET=settings.v_reset is None,
        LINEAR_DECAY=settings.linear_decay,
        DECAY_INPUT=settings.decay_input,
        SURROGATE=SURROGATES[settings.surrogate],
        SOFT_SPIKE=settings.soft_spike,
        **place(g),
        **channel_place(g),
        **own[neuron],
        **COMPILER,
    )


def _register_limit(neuron: str, plain: bool) -> dict[str, int]:
    """The limit for a backward thread; ``plain``: no sums, and time is outermost in memory.

    ptxas, left alone, takes more than a plain one needs (LLIF, SLIF: up to 72), and spills at 64 what needs more. LIF
    it compiles best without a limit.
    """
    if torch.version.hip or neuron == "lif":  # AMD's compiler does not have the option
        return {}
    return {"maxnreg": _REGISTERS if plain else _MORE_REGISTERS[neuron]}


def forward(
    neuron: str,
    x: Tensor,  # [T, ...]
    v: Tensor | None,  # [...] float32
    adapt: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Spikes, v, adapt, v_seq and checkpoints; those that are not asked for are empty."""
    settings = _Settings(*rest[:-3])
    save_checkpoints, return_state, return_v_seq = rest[-3:]
    _check(x, settings)
    adapt_name = _ADAPT[neuron]
    x = dense(x)
    g = make_geometry(x, _channels(settings))
    none = x.new_empty(0, dtype=torch.float32)
    layout = empty_state(x) if return_state or v is not None or adapt is not None else none
    v = with_layout_of(v, layout, "state.v")
    adapt = with_layout_of(adapt, layout, f"state.{adapt_name}")

    spikes = torch.empty_like(x)
    v_out = layout if return_state else none
    adapt_out = torch.empty_like(layout) if return_state and adapt_name else x.new_empty(0, dtype=torch.float32)
    v_seq = torch.empty_like(x) if return_v_seq else x.new_empty(0)
    chunks = (g.T - 1) // CHECKPOINT_STEPS if save_checkpoints and g.T > 0 else 0
    checkpoints = x.new_empty(chunks, 2 if adapt_name else 1, g.N, dtype=torch.float32)

    if g.N > 0 and (g.T > 0 or return_state):
        tensors = dict(
            x_ptr=x,
            v0_ptr=v,
            s_ptr=spikes,
            v_ptr=v_out if return_state else None,
            v_seq_ptr=v_seq if return_v_seq else None,
            checkpoints_ptr=checkpoints if save_checkpoints else None,
        )
        if adapt_name:
            tensors[f"{adapt_name}0_ptr"] = adapt
            tensors[f"{adapt_name}_ptr"] = adapt_out if return_state else None
        block = THREADS * VECTOR
        with device_of(x):
            _FORWARD_KERNELS[neuron][blocks(g.N, block)](
                **tensors, **_arguments(neuron, settings, g), VECTOR=vector(g, *tensors.values()), BLOCK=block
            )
    return spikes, v_out, adapt_out, v_seq, checkpoints


def backward(
    neuron: str,
    grad_spikes: Tensor,  # [T, ...]
    grad_v: Tensor | None,  # [...] float32
    grad_adapt: Tensor | None,
    grad_v_seq: Tensor | None,  # [T, ...]
    x: Tensor,
    v: Tensor | None,
    adapt: Tensor | None,
    checkpoints: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, v, adapt, tau and v_threshold, and the sums for affine; empty for what was not a tensor."""
    settings = _Settings(*rest)
    _check(x, settings)
    adapt_name = _ADAPT[neuron]
    x = dense(x)
    g = make_geometry(x, _channels(settings))
    grad_spikes = with_layout_of(grad_spikes, x, "grad_spikes")
    grad_v_seq = with_layout_of(grad_v_seq, x, "grad_v_seq")
    none = x.new_empty(0, dtype=torch.float32)
    layout = none if all(t is None for t in (v, adapt, grad_v, grad_adapt)) else empty_state(x)
    v = with_layout_of(v, layout, "state.v")
    adapt = with_layout_of(adapt, layout, f"state.{adapt_name}")
    grad_v = with_layout_of(grad_v, layout, "grad_v")
    grad_adapt = with_layout_of(grad_adapt, layout, "grad_adapt")
    chunks = (g.T - 1) // CHECKPOINT_STEPS if g.T > 0 else 0
    if checkpoints.numel() != chunks * (2 if adapt_name else 1) * g.N or checkpoints.dtype != torch.float32:
        raise ValueError("stdano: checkpoints must be those that the forward operator returned")

    grad_x = torch.empty_like(x)
    grad_v0 = none if v is None else torch.empty_like(layout)
    grad_adapt0 = torch.empty_like(layout) if adapt_name and adapt is not None else x.new_empty(0, dtype=torch.float32)
    tau, v_threshold, affine = settings[:3]
    grad_tau, grad_v_threshold = (None if t is None else torch.empty_like(t) for t in (tau, v_threshold))
    affine_sums = None if affine is None else x.new_empty(2, affine.shape[1], dtype=torch.float64)
    outputs = (
        grad_x,
        grad_v0,
        grad_adapt0,
        x.new_empty(0, dtype=torch.float32) if grad_tau is None else grad_tau,
        x.new_empty(0, dtype=torch.float32) if grad_v_threshold is None else grad_v_threshold,
        x.new_empty(0, 1, dtype=torch.float64) if affine_sums is None else affine_sums,
    )
    if g.N == 0:
        for t in outputs[3:]:
            t.zero_()
        return outputs

    constants = tau is not None or v_threshold is not None
    count = 2 * constants + 2 * (affine is not None)
    slabs, flat = make_slabs(g, count > 0), g.inner == g.N
    partials = x.new_empty(count, slabs.slabs, slabs.columns, dtype=torch.float64) if count else None
    tensors = dict(
        gs_ptr=grad_spikes,
        gv_ptr=grad_v,
        gv_seq_ptr=grad_v_seq,
        x_ptr=x,
        v0_ptr=v,
        checkpoints_ptr=checkpoints,
        gx_ptr=grad_x,
        gv0_ptr=None if v is None else grad_v0,
        partial_ptr=partials,
    )
    if adapt_name:
        tensors[f"{adapt_name}0_ptr"] = adapt
        tensors[f"g{adapt_name}_ptr"] = grad_adapt
        tensors[f"g{adapt_name}0_ptr"] = None if adapt is None else grad_adapt0
    with device_of(x):
        _BACKWARD_KERNELS[neuron][blocks(slabs.entries, THREADS)](
            **tensors,
            **slabs._asdict(),
            # Where the simple way to find a neuron's place makes ptxas take 92 registers, the general one takes 48.
            **{**_arguments(neuron, settings, g), "FLAT": flat and not (constants and neuron == "lif")},
            **({"DETACH_ADAPT": settings.detach_adapt} if adapt_name else {}),
            DETACH_RESET=settings.detach_reset,
            CONSTANTS=constants,
            BLOCK=THREADS,
            **_register_limit(neuron, flat and not count),
        )
        if partials is not None:
            add_up(partials, slabs, affine_sums, grad_tau, grad_v_threshold)
    return outputs


_LIBRARY = define(forward, backward, CHANNEL_OPERATORS)  # the operators exist as long as this does
registration.register(NAMESPACE)  # here, where the lock of the import sees to it that it happens once
