"""The compiled operators as PyTorch sees them: shapes for tracing (fake) and gradients (autograd).

Schemas stand in csrc/ops.cpp. All neurons share two operators, forward and backward; which neuron it is, and in which
settings, is the argument ``kernel``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial, wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import constant, fakes, two_levels
from .backends import EXTENSION_ERROR
from .saved import saved_tensors
from .settings import compute_dtype

# Where each compiled backend's operators are: torch chooses between C++ and CUDA by the tensor's device.
NAMESPACES = {"cpu": "stdano", "cuda": "stdano", "triton": "stdano_triton"}


class Call(NamedTuple):
    """What the operators are told besides tensors: the arguments from ``which`` on that both have."""

    which: list[int]  # numbers of the constants that are tensors
    values: list[float]  # of all constants; of a tensor any number
    alpha: float
    kernel: str
    sequences: list[int]  # numbers of the states whose values after every step are wanted


def call(
    namespace: str,
    kernel: str,
    x: Tensor,
    state: Sequence[Tensor],
    affine: Tensor | None,
    constants: Sequence[float | Tensor],
    alpha: float,
    return_state: bool,
    sequences: list[int],
    step: Tensor | None,
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
    """Runs a compiled neuron: spikes, final states and sequences; empty where they are not asked for. ``step``: see
    constant.step_of."""
    refuse_transforms(x, *state, *constants, affine)
    affine = None if affine is None else affine.to(compute_dtype(x)).contiguous()
    own, tensors = settle(kernel, x, constants, alpha, sequences)
    # Checkpoints of the state serve the backward pass alone.
    needs_grad = wants_grad(x, *state, *tensors, affine)
    if torch.compiler.is_compiling() or in_functorch():
        spikes, final, found, _ = _forward(namespace, x, list(state), tensors, affine, own, needs_grad, return_state)
    elif needs_grad:
        counts = (len(state), len(tensors))
        spikes, *out = _Eager.apply(namespace, counts, own, return_state, x, step, affine, *state, *tensors)
        count = len(out) - 1 - len(own.sequences)
        final, found = out[:count], out[count:-1]
    else:
        with torch._C._AutoDispatchBelowAutograd():
            spikes, final, found, _ = _forward(namespace, x, list(state), tensors, affine, own, False, return_state)
    return spikes, final, found


def settle(
    kernel: str, x: Tensor, constants: Sequence[float | Tensor], alpha: float, sequences: list[int]
) -> tuple[Call, list[Tensor]]:
    """What the operators are told, and those of the constants that are tensors."""
    which = [j for j, c in enumerate(constants) if isinstance(c, Tensor)]
    if not which:
        return Call(which, constants, alpha, kernel, sequences), []  # type: ignore[arg-type]
    tensors = [_constant(constants[j], x, compute_dtype(x)) for j in which]
    values = [1.0 if isinstance(c, Tensor) else c for c in constants]
    return Call(which, values, alpha, kernel, sequences), tensors


def wants_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _constant(value: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    """A constant as the operators take it: of one element, one a channel, or in the shape of a state."""
    value = value.to(dtype)
    if value.dim() == 0 or (value.dim() == 1 and x.dim() >= 3):
        return value.contiguous()
    return value.expand(x.shape[1:]) if value.shape != x.shape[1:] else value


def _forward(
    namespace: str,
    x: Tensor,
    state: list[Tensor],
    constants: list[Tensor],
    affine: Tensor | None,
    own: Call,
    save_checkpoints: bool,
    return_state: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    return operator(namespace, "scan_forward")(
        x, state, constants, affine, *own[:4], save_checkpoints, return_state, own.sequences
    )


def operator(namespace: str, name: str) -> Any:
    """The operator ``torch.ops.namespace.name``."""
    return getattr(getattr(torch.ops, namespace), name).default


class _Eager(torch.autograd.Function):
    """The operator's autograd without the dispatcher's way to it, which costs a train step 0.1 to 0.2 ms: more than
    its Python takes, because the kernels' threads fall asleep meanwhile."""

    @staticmethod
    def forward(
        ctx: Any,
        namespace: str,
        counts: tuple[int, int],
        own: Call,
        return_state: bool,
        x: Tensor,
        step: Tensor | None,
        affine: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        states = counts[0]
        x, kept = constant.remember(ctx, x, step)
        with torch._C._AutoDispatchBelowAutograd():
            spikes, final, values, checkpoints = _forward(
                namespace, x, list(tensors[:states]), list(tensors[states:]), affine, own, True, return_state
            )
        checkpoints = two_levels.thinned(x, checkpoints)
        ctx.namespace, ctx.counts, ctx.own, ctx.states = namespace, counts, own, len(final)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(kept, affine, checkpoints, *tensors)
        ctx.mark_non_differentiable(checkpoints)
        return spikes, *final, *values, checkpoints

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *grads: Tensor | None) -> tuple[Any, ...]:
        of_state, of_sequences = grads[: ctx.states], grads[ctx.states : -1]
        kept, *saved = saved_tensors(ctx)
        x = constant.recall(ctx, kept)
        given = (ctx.namespace, ctx.counts, ctx.own, x, saved, grad, of_state, of_sequences)
        if every := two_levels.every_of(x, saved[1]):
            of_x, *others = two_levels.backward(_forward, _backward, every, *given)
        else:
            of_x, *others = _backward(*given)
        return None, None, None, None, *constant.gradients(x, of_x), *others


def in_functorch() -> bool:
    return torch._C._functorch.maybe_current_level() is not None


def refuse_transforms(*values: object) -> None:
    """Says what the kernels cannot do, before torch says it in its own terms or, in forward mode, gives zeros."""
    if torch.compiler.is_compiling() or (forward_ad._current_level < 0 and not in_functorch()):
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


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    x, state, constants, affine, *own, _, _, sequences = inputs
    ctx.own, ctx.counts = Call(*own, sequences), (len(state), len(constants))  # type: ignore[call-arg]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, affine, output[-1], *state, *constants)


def _backward_of_operator(
    namespace: str,
    ctx: Any,
    grad: Tensor | None,
    of_state: Sequence[Tensor | None],
    of_sequences: Sequence[Tensor | None],
    _: Tensor | None,
) -> tuple[Any, ...]:
    x, *saved = saved_tensors(ctx)
    of_x, of_affine, *others = _backward(
        namespace, ctx.counts, ctx.own, constant.copied(x), saved, grad, of_state, of_sequences
    )
    # An empty list is one of tensors to torch, which wants a list back for it.
    plain: list[Any] = [[] if value == [] else None for value in (*ctx.own[:4], None, None, ctx.own.sequences)]
    return of_x, others[: ctx.counts[0]], others[ctx.counts[0] :], of_affine, *plain


def _backward(
    namespace: str,
    counts: tuple[int, int],
    own: Call,
    x: Tensor,
    saved: Sequence[Tensor],
    grad: Tensor | None,
    of_state: Sequence[Tensor | None],
    of_sequences: Sequence[Tensor | None],
) -> tuple[Any, ...]:
    """The gradients of x (of its one step where it is constant), affine, states and constants."""
    affine, checkpoints, *tensors = saved
    given, settings = incoming(x, own, grad, of_state, of_sequences)
    states, constants = tensors[: counts[0]], tensors[counts[0] :]
    backward = operator(namespace, "scan_backward")
    # A second derivative is what the operator's own backward refuses.
    with nullcontext() if torch.is_grad_enabled() else torch._C._AutoDispatchBelowAutograd():
        of_x, of_initial, of_constants, affine_sums = backward(
            *given, x, states, checkpoints, constants, affine, *settings
        )
    of_affine = None
    if affine is not None:
        of_shift, of_scale = affine_sums
        of_affine = torch.stack((-affine[1] * of_shift, of_scale, of_shift)).to(affine.dtype)
    return of_x, of_affine, *of_initial, *of_constants


def incoming(
    x: Tensor,
    own: Call,
    grad: Tensor | None,
    of_state: Sequence[Tensor | None],
    of_sequences: Sequence[Tensor | None],
) -> tuple[tuple[Tensor, list[Tensor], list[Tensor]], tuple[Any, ...]]:
    """The gradients that a backward operator is given, and its settings."""
    grad = torch.zeros_like(x) if grad is None else grad
    state_grads: list[Tensor] = []
    if any(t is not None for t in of_state):
        none = x.new_empty(0, dtype=compute_dtype(x))  # a list of tensors has no other way to say so
        state_grads = [none if t is None else t for t in of_state]
    wanted = [(j, t) for j, t in zip(own.sequences, of_sequences, strict=True) if t is not None]
    return (grad, state_grads, [t for _, t in wanted]), (*own[:4], [j for j, _ in wanted])


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


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """torch.autograd.function.once_differentiable with an error that says what to do, and that also comes where the
    incoming gradient is a constant: the result depends on the saved tensors all the same."""

    @wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return backward(ctx, *grads)
        with torch.no_grad():
            out = backward(ctx, *grads)
        anchor = torch.zeros((), requires_grad=True)
        return tuple(t if t is None else _RefuseSecondDerivative.apply(t, anchor) for t in out)

    return wrapped


def _mapped(name: str, info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """torch.vmap of an operator: one call after the other."""

    def part(value: Any, dim: Any, k: int) -> Any:
        if isinstance(value, list) and isinstance(dim, (list, tuple)):
            return [part(v, d, k) for v, d in zip(value, dim, strict=True)]
        return value if dim is None else value.select(dim, k)

    def joined(parts: tuple[Any, ...]) -> Any:
        lists = not isinstance(parts[0], Tensor)
        return [torch.stack(t) for t in zip(*parts, strict=True)] if lists else torch.stack(parts)

    namespace, _, own = name.partition("::")
    call = operator(namespace, own)
    results = [
        call(*[part(value, dim, k) for value, dim in zip(arguments, in_dims, strict=True)])
        for k in range(info.batch_size)
    ]
    out = tuple(joined(parts) for parts in zip(*results, strict=True))
    return out, tuple(0 if isinstance(t, Tensor) else [0] * len(t) for t in out)


def register(namespace: str) -> None:
    """Attaches tracing and gradients to the operators of a namespace, compiled C++ or Triton alike."""
    forward, backward = f"{namespace}::scan_forward", f"{namespace}::scan_backward"
    torch.library.register_fake(forward, fakes.forward)
    torch.library.register_fake(backward, fakes.backward)
    torch.library.register_autograd(forward, partial(_backward_of_operator, namespace), setup_context=_setup_context)
    torch.library.register_autograd(backward, no_double_backward)
    for name in (forward, backward):
        torch.library.register_vmap(name, partial(_mapped, name))
    for name, fake in (fakes.CHANNEL_OPERATORS | fakes.BITS_OPERATORS).items():
        torch.library.register_fake(f"{namespace}::{name}", fake)


if EXTENSION_ERROR is None:
    register(NAMESPACES["cpu"])
