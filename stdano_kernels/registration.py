"""The compiled operators as PyTorch sees them: shapes for tracing (fake) and gradients (autograd).

Schemas stand in csrc/ops.cpp. All neurons share one, with ``adapt`` for the second state (theta or p).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import fakes
from .backends import EXTENSION_ERROR
from .fakes import NEURONS
from .saved import saved_tensors
from .settings import Settings, compute_dtype

# Where each compiled backend's operators are: torch chooses between C++ and CUDA by the tensor's device.
NAMESPACES = {"cpu": "stdano", "cuda": "stdano", "triton": "stdano_triton"}

_INPUTS = 6  # x, v, adapt, tau, v_threshold, affine
_LAST = 18  # arguments before save_checkpoints


def call(
    name: str,
    x: Tensor,
    v: Tensor | None,
    adapt: Tensor | None,
    tau: float | Tensor,
    v_threshold: float | Tensor,
    affine: Tensor | None,
    settings: Settings,
    return_state: bool,
    return_v_seq: bool,
    namespace: str,
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Runs a compiled neuron: spikes, (v, adapt) and potentials; the latter empty unless asked for."""
    refuse_transforms(x, v, adapt, tau, v_threshold, affine)
    dtype = compute_dtype(x)
    constants = [t.to(dtype).contiguous() if isinstance(t, Tensor) else None for t in (tau, v_threshold, affine)]
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


def refuse_transforms(*values: object) -> None:
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


def refuse_vmap(*values: object) -> None:
    """For functions that a batch's statistics or several operators stand behind; one operator alone can be mapped."""
    if not torch.compiler.is_compiling() and any(
        isinstance(t, Tensor) and torch._C._functorch.is_batchedtensor(t) for t in values
    ):
        raise RuntimeError("stdano: BatchNorm and the super neuron do not take part in torch.vmap; use a loop")


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
    x, v, adapt, tau, v_threshold, affine, checkpoints = saved_tensors(ctx)
    grad_spikes = torch.zeros_like(x) if grad_spikes is None else grad_spikes
    *out, affine_sums = operator(namespace, f"{name}_backward")(
        grad_spikes, grad_v, grad_adapt, grad_v_seq, x, v, adapt, checkpoints, tau, v_threshold, affine, *ctx.arguments
    )
    wanted = [x, v, adapt, tau, v_threshold]
    inputs = [None if t is None else g for t, g in zip(wanted, out, strict=True)]
    if affine is None:
        inputs.append(None)
    else:
        of_shift, of_scale = affine_sums
        inputs.append(torch.stack((-affine[1] * of_shift, of_scale, of_shift)).to(affine.dtype))
    return (*inputs, *[None] * (_LAST - _INPUTS + 3))


def no_double_backward(ctx: Any, *grads: Tensor | None) -> None:
    raise RuntimeError(
        "stdano: the kernels have no second derivative. Leave out create_graph=True, or compute with "
        'backend="reference", which can be differentiated twice.'
    )


class _RefuseSecondDerivative(torch.autograd.Function):
    """A gradient as it is, which depends on ``anchor`` and so on something that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, anchor: Tensor) -> Tensor:
        return grad.view_as(grad)

    backward = staticmethod(no_double_backward)


def differentiable_once(backward: Callable) -> Callable:
    """torch.autograd.function.once_differentiable with an error that says what to do, and that also comes where the
    incoming gradient is a constant: the result depends on the saved tensors all the same."""

    @wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> tuple:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return backward(ctx, *grads)
        with torch.no_grad():
            out = backward(ctx, *grads)
        anchor = torch.zeros((), requires_grad=True)
        return tuple(t if t is None else _RefuseSecondDerivative.apply(t, anchor) for t in out)

    return wrapped


def register(namespace: str) -> None:
    """Attaches tracing and gradients to the operators of a namespace, compiled C++ or Triton alike."""
    for name in NEURONS:
        forward, backward = f"{namespace}::{name}_forward", f"{namespace}::{name}_backward"
        torch.library.register_fake(forward, lambda *a, _name=name: fakes.forward(_name, *a))
        torch.library.register_fake(backward, lambda *a, _name=name: fakes.backward(_name, *a))
        torch.library.register_autograd(
            forward,
            lambda ctx, *grads, _name=name: _backward(namespace, _name, ctx, *grads),
            setup_context=lambda ctx, inputs, output: _setup_context(ctx, inputs, output),
        )
        torch.library.register_autograd(backward, no_double_backward)
    for name, fake in fakes.CHANNEL_OPERATORS.items():
        torch.library.register_fake(f"{namespace}::{name}", fake)


if EXTENSION_ERROR is None:
    register(NAMESPACES["cpu"])
