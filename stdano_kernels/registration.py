"""The compiled operators as PyTorch sees them: shapes for tracing (fake) and gradients (autograd).

Schemas stand in csrc/ops.cpp. All neurons share one, with ``adapt`` for the second state (theta or p).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .backends import EXTENSION_ERROR
from .saved import saved_tensors
from .settings import Settings, compute_dtype

NEURONS = ("lif", "llif", "slif")
# Where each compiled backend's operators are: torch chooses between C++ and CUDA by the tensor's device.
NAMESPACES = {"cpu": "stdano", "cuda": "stdano", "triton": "stdano_triton"}
# Time steps between two saved states, as csrc/call.h has them: on the CPU, and on a device for float32 and float64.
CHECKPOINT_STEPS = 16
DEVICE_CHECKPOINT_STEPS = {torch.float32: 8, torch.float64: 4}

_INPUTS = 5  # x, v, adapt, tau, v_threshold
_LAST = 17  # arguments before save_checkpoints


def call(
    name: str,
    x: Tensor,
    v: Tensor | None,
    adapt: Tensor | None,
    tau: float | Tensor,
    v_threshold: float | Tensor,
    settings: Settings,
    return_state: bool,
    return_v_seq: bool,
    namespace: str,
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Runs a compiled neuron: spikes, (v, adapt) and potentials; the latter empty unless asked for."""
    _refuse_transforms(x, v, adapt, tau, v_threshold)
    dtype = compute_dtype(x)
    constants = [t.to(dtype).contiguous() if isinstance(t, Tensor) else None for t in (tau, v_threshold)]
    values = [t if not isinstance(t, Tensor) else 1.0 for t in (tau, v_threshold)]
    tensors = (x, v, adapt, *constants)
    # Checkpoints of the state serve the backward pass alone.
    needs_grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    arguments = (*values, *settings.as_arguments(), needs_grad, return_state, return_v_seq)
    if torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None:
        out = operator(namespace, f"{name}_forward")(*tensors, *arguments)
    elif needs_grad:
        out = _Eager.apply(namespace, name, *tensors, *arguments)
    else:
        with torch._C._AutoDispatchBelowAutograd():
            out = operator(namespace, f"{name}_forward")(*tensors, *arguments)
    spikes, v_out, adapt_out, v_seq, _ = out
    return spikes, (v_out, adapt_out), v_seq


def operator(namespace: str, name: str) -> Any:
    """The operator ``torch.ops.namespace.name``."""
    return getattr(getattr(torch.ops, namespace), name).default


class _Eager(torch.autograd.Function):
    """The operator's autograd without the dispatcher's way to it, which costs a train step 0.1 to 0.2 ms: more than
    its Python takes, because the kernels' threads fall asleep meanwhile."""

    @staticmethod
    def forward(ctx: Any, namespace: str, name: str, *inputs: Any) -> tuple[Tensor, ...]:
        ctx.namespace, ctx.name = namespace, name
        with torch._C._AutoDispatchBelowAutograd():
            output = operator(namespace, f"{name}_forward")(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:
        return None, None, *_backward(ctx.namespace, ctx.name, ctx, *grads)


def _refuse_transforms(*values: object) -> None:
    """Says what the kernels cannot do, before torch says it in its own terms or, in forward mode, gives zeros."""
    if torch.compiler.is_compiling():
        return
    if any(isinstance(t, Tensor) and torch._C._functorch.is_gradtrackingtensor(t) for t in values):
        raise RuntimeError(
            "stdano: the kernels do not take part in torch.func transforms (grad, jacrev, jvp); use torch.autograd, or "
            'backend="reference" for reverse mode'
        )
    if forward_ad._current_level >= 0 and any(
        isinstance(t, Tensor) and forward_ad.unpack_dual(t, level=0).tangent is not None for t in values
    ):
        raise RuntimeError("stdano: the kernels have no forward-mode derivative (jvp, jacfwd); use reverse mode")


def _empty_state(like: Tensor, dtype: torch.dtype) -> Tensor:
    if like.shape[0] == 0:
        return like.new_empty(like.shape[1:], dtype=dtype)
    return torch.empty_like(like.select(0, 0), dtype=dtype)


def _fake_forward(name: str, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
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
    checkpoints = x.new_empty(chunks, 2 if has_adapt else 1, neurons, dtype=dtype)
    return spikes, v, adapt, v_seq, checkpoints


def _fake_backward(
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
    )


def _setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.set_materialize_grads(False)
    ctx.arguments = inputs[_INPUTS:_LAST]
    _, ctx.returns_state, ctx.returns_v_seq = inputs[_LAST:]
    ctx.save_for_backward(*inputs[:_INPUTS], output[-1])
    ctx.mark_non_differentiable(output[-1])


def _backward(namespace: str, name: str, ctx: Any, *grads: Tensor | None) -> tuple:
    grad_spikes, grad_v, grad_adapt, grad_v_seq, _ = grads
    # What was not asked for is an empty tensor, for which a compiled graph may hand an empty gradient back.
    if not ctx.returns_state or name == "lif":
        grad_adapt = None
    grad_v = grad_v if ctx.returns_state else None
    grad_v_seq = grad_v_seq if ctx.returns_v_seq else None
    x, v, adapt, tau, v_threshold, checkpoints = saved_tensors(ctx)
    grad_spikes = torch.zeros_like(x) if grad_spikes is None else grad_spikes
    out = operator(namespace, f"{name}_backward")(
        grad_spikes, grad_v, grad_adapt, grad_v_seq, x, v, adapt, checkpoints, tau, v_threshold, *ctx.arguments
    )
    wanted = [x, v, adapt, tau, v_threshold]
    inputs = tuple(None if t is None else g for t, g in zip(wanted, out, strict=True))
    return (*inputs, *[None] * (_LAST - _INPUTS + 3))


def _no_double_backward(ctx: Any, *grads: Tensor | None) -> None:
    raise RuntimeError(
        "stdano: the kernels have no second derivative. Leave out create_graph=True, or compute with "
        'backend="reference", which can be differentiated twice.'
    )


def register(namespace: str) -> None:
    """Attaches tracing and gradients to the operators of a namespace, compiled C++ or Triton alike."""
    for name in NEURONS:
        forward, backward = f"{namespace}::{name}_forward", f"{namespace}::{name}_backward"
        torch.library.register_fake(forward, lambda *a, _name=name: _fake_forward(_name, *a))
        torch.library.register_fake(backward, lambda *a, _name=name: _fake_backward(_name, *a))
        torch.library.register_autograd(
            forward,
            lambda ctx, *grads, _name=name: _backward(namespace, _name, ctx, *grads),
            setup_context=lambda ctx, inputs, output: _setup_context(ctx, inputs, output),
        )
        torch.library.register_autograd(backward, _no_double_backward)


if EXTENSION_ERROR is None:
    register(NAMESPACES["cpu"])
