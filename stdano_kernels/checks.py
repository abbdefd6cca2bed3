"""Checks of tensor arguments, made once, before anything is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from .settings import compute_dtype, number

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_input(x: Tensor) -> None:
    """x is a dense floating-point tensor with a time dimension."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        raise TypeError(f"x must be float32, float64, float16 or bfloat16, got {x.dtype}")
    if x.layout != torch.strided:
        raise TypeError(f"x must be a dense (strided) tensor, got layout {x.layout}")
    if x.dim() < 1:
        raise ValueError("x must have a time dimension, [T, ...]; got a tensor of shape ()")


def check_constant(
    name: str, value: float | Tensor, x: Tensor, above: float | None = None, or_inf: bool = False
) -> float | Tensor:
    """A constant: a number, or a tensor on x's device with valid values, of shape [], [C] or one a neuron."""
    if not isinstance(value, Tensor):
        return number(name, value, above=above, or_inf=or_inf)
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} must be a number or a floating-point tensor, got a tensor of {value.dtype}")
    if value.device != x.device:
        raise ValueError(f"{name} must be on the device of x, {x.device}, got a tensor on {value.device}")
    if not _fits(value, x):
        per_channel = f"[{x.shape[2]}] (dimension 2 of x [T, B, C, ...])" if x.dim() >= 3 else ""
        shapes = ", ".join(filter(None, ("[]", per_channel)))
        raise ValueError(
            f"{name} must be a number or a tensor of shape {shapes} or one that broadcasts to a time step of x, "
            f"{list(x.shape[1:])}, got shape {list(value.shape)} with x of shape {list(x.shape)}"
        )
    limit = "" if above is None else f" above {above:g}"
    # Values can be read without waiting for a device on the CPU alone; a compiled graph looks at them as it runs.
    if value.device.type == "cpu" and not torch.compiler.is_compiling() and not _is_traced(value):
        bad = ~torch.isfinite(value.detach())
        if above is not None:
            bad |= value.detach() <= above
        if bool(bad.any()):
            raise ValueError(f"{name} must be finite{limit} everywhere, got {value.detach()[bad].flatten()[0].item()}")
    elif value.device.type == "cpu" and torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        good = torch.isfinite(value.detach()).all()
        if above is not None:
            good &= (value.detach() > above).all()
        torch._assert_async(good, f"{name} must be finite{limit} everywhere")
    return value


def _fits(value: Tensor, x: Tensor) -> bool:
    """Whether a constant has one element, one for each channel, or broadcasts to a time step of x."""
    if value.dim() == 0:
        return True
    if value.dim() == 1 and x.dim() >= 3:
        return value.shape[0] == x.shape[2]
    sizes = x.shape[1:]
    if value.dim() > len(sizes):
        return False
    return all(n in (1, m) for n, m in zip(reversed(value.shape), reversed(sizes), strict=False))


def check_tensor(name: str, value: object, shape: tuple[int, ...], x: Tensor, none: str = "") -> None:
    """``value`` is a floating-point tensor of this shape on x's device; ``none`` is what else is allowed."""
    if not isinstance(value, Tensor) or value.dtype not in DTYPES or tuple(value.shape) != shape:
        got = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} must be {none}a floating-point tensor of shape {list(shape)}, got {got}")
    if value.device != x.device:
        raise ValueError(f"{name} must be on the device of x, {x.device}, got a tensor on {value.device}")


def check_affine(affine: Tensor | None, x: Tensor) -> Tensor | None:
    """None, or a tensor [3, C] on x's device with a column for each channel of x, in the dtype of arithmetic."""
    if affine is None:
        return None
    if not isinstance(affine, Tensor) or affine.dtype not in DTYPES:
        what = str(affine.dtype) if isinstance(affine, Tensor) else type(affine).__name__
        raise TypeError(f"affine must be None or a floating-point tensor of shape [3, C], got {what}")
    channels = check_channels(x)
    if tuple(affine.shape) != (3, channels):
        raise ValueError(f"affine must have the shape [3, {channels}] (dimension 2 of x), got {list(affine.shape)}")
    if affine.device != x.device:
        raise ValueError(f"affine must be on the device of x, {x.device}, got a tensor on {affine.device}")
    return affine.to(compute_dtype(x))


def check_channels(x: Tensor) -> int:
    """The number of channels of x: [T, B, C, ...]."""
    if x.dim() < 3:
        raise ValueError(f"x must have channels, [T, B, C, ...]; got a tensor of shape {list(x.shape)}")
    return x.shape[2]


def _is_traced(x: Tensor) -> bool:
    return type(x) not in (Tensor, torch.nn.Parameter) or torch._C._functorch.maybe_current_level() is not None


def check_state(kind: str, fields: tuple[str, ...], state: object, x: Tensor) -> tuple[Tensor, ...]:
    """The tensors of a state in the dtype of arithmetic; none for None."""
    if state is None:
        return ()
    if not isinstance(state, tuple) or len(state) != len(fields):
        raise TypeError(f"state must be None or {kind}({', '.join(fields)}), got {type(state).__name__}")
    for name, value in zip(fields, state, strict=True):
        if not isinstance(value, Tensor) or value.dtype not in DTYPES:
            what = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"state.{name} must be a floating-point tensor, got {what}")
        if value.shape != x.shape[1:]:
            raise ValueError(
                f"state.{name} must have the shape of x less its time dimension, {list(x.shape[1:])}, got "
                f"{list(value.shape)}; a new sequence starts with state=None"
            )
        if value.device != x.device:
            raise ValueError(f"state.{name} must be on the device of x, {x.device}, got a tensor on {value.device}")
    return tuple(value.to(compute_dtype(x)) for value in state)


def is_dense(x: Tensor) -> bool:
    """Whether x covers every element of a block of memory exactly once, in whatever order of dimensions: torch then
    makes what is like it in the same order."""
    return x.is_contiguous() or torch.empty_like(x, device="meta").stride() == x.stride()


def dense(x: Tensor) -> Tensor:
    return x if is_dense(x) else torch.empty_like(x).copy_(x)
