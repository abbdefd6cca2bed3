"""Constant input: x ``[T, ...]`` that is one step, expanded over time with a stride of 0. Kernels read the step once,
and write its gradient once: the sum of the steps' gradients from the last to the first, in the dtype of arithmetic.

The sum belongs to the tensor in front of the expansion. Autograd's own way there would make a gradient of all steps.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from .checks import dense

# Views that may lie between the two.
_VIEWS = ("ExpandBackward0", "UnsqueezeBackward0", "ViewBackward0")


def is_constant(x: Tensor) -> bool:
    """Whether the operators take x for constant input (csrc/tensors.h). No guard where a stride is a symbol."""
    strides = x.stride()
    return bool(strides) and type(strides[0]) is int and strides[0] == 0 and x.shape[0] > 1 and x.numel() > 0


def copied(x: Tensor) -> Tensor:
    """Constant input as any other, of whose every step the operators give the gradient."""
    return x.clone() if is_constant(x) else x


def step_of(x: Tensor) -> Tensor | None:
    """The step ``[...]``, dense, that a constant x repeats, which gets the gradient past the expansion. None for any
    other x, and where the gradient of x itself may be looked at, or what is in front is not known for certain."""
    if torch.compiler.is_compiling() or not is_constant(x) or torch._C._functorch.maybe_current_level() is not None:
        return None
    if not (x.requires_grad and torch.is_grad_enabled()):
        return dense(x.detach()[0])
    base, sizes = _base_of(x), x.shape[1:]
    if base is None or _is_watched(x):
        return None
    if base.dim() == x.dim() and base.shape[0] == 1:
        base = base.squeeze(0)
    missing = len(sizes) - base.dim()
    if missing < 0 or any(n not in (1, size) for n, size in zip(base.shape, sizes[missing:], strict=True)):
        return None
    step = base.expand(sizes)  # never a leaf; see wants_all_steps
    same = step.storage_offset() == x.storage_offset() and all(
        s == t or n == 1 for s, t, n in zip(step.stride(), x.stride()[1:], sizes, strict=True)
    )
    return dense(step) if same else None


def _base_of(x: Tensor) -> Tensor | None:
    """The tensor whose memory x shows, where nothing but such views lies in between."""
    base: Tensor | None = x._base
    node: Any = x.grad_fn
    if base is None or base.dtype != x.dtype:
        return None
    while node is not None and node is not base.grad_fn and node.name() in _VIEWS:
        node = node.next_functions[0][0]
    found = node is not None and (node is base.grad_fn or getattr(node, "variable", None) is base)
    return base if found else None


def _is_watched(x: Tensor) -> bool:
    return bool(x._backward_hooks) or x.retains_grad


def remember(ctx: Any, x: Tensor, step: Tensor | None) -> tuple[Tensor, Tensor]:
    """In the forward of a function whose first two tensors are these: x for the operator, and what is to be kept."""
    ctx.steps = x.shape[0] if step is not None else 0
    ctx.whole = weakref.ref(x) if ctx.steps and x.requires_grad else None
    return (x, x) if step is None else (step.expand(x.shape), step)


def recall(ctx: Any, kept: Tensor) -> Tensor:
    """In its backward: x for the operator, whose gradient belongs to where :func:`gradients` says."""
    if ctx.steps == 0:
        return copied(kept)
    x = kept.expand(ctx.steps, *kept.shape)
    return copied(x) if wants_all_steps(ctx) else x


def gradients(x: Tensor, of_x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Those of x and of its step, from what the operator made of such an x."""
    return (None, of_x) if is_constant(x) else (of_x, None)


def wants_all_steps(ctx: Any) -> bool:
    """Whether the gradient of the expanded tensor itself is asked for, by hooks that it got after the call, or because
    autograd.grad() stops there."""
    if ctx.whole is None:
        return False
    x = ctx.whole()
    if x is not None and _is_watched(x):
        return True
    return not torch._C._will_engine_execute_node(ctx.next_functions[1][0])
