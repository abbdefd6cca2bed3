"""Checks and layouts of tensors, the counterpart of ``csrc/tensors.h``: any dense order is taken as is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import dense
from ..constant import is_constant

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class Geometry(NamedTuple):
    """A dense tensor [T, ...] in memory order: [outer][T][inner], with N = outer*inner neurons."""

    T: int
    N: int
    inner: int
    channels: int  # 1 where no constant differs between channels
    channel_stride: int


def check_dtype(name: str, x: Tensor, dtypes: tuple[torch.dtype, ...] = FLOATS) -> None:
    if x.dtype not in dtypes:
        raise TypeError(f"stdano: the Triton kernels take {name} in {' or '.join(map(str, dtypes))}, got {x.dtype}")


def check_table(name: str, table: Tensor, rows: int, x: Tensor) -> None:
    """What kernels read for each channel of x."""
    right = table.dtype == torch.float32 and table.is_contiguous() and table.device == x.device
    if not right or x.dim() < 3 or table.shape != (rows, x.shape[2]):
        raise ValueError(
            f"stdano: {name} must be contiguous, float32, on x's device, and of shape [{rows}, {list(x.shape[2:3])}], "
            f"got {table.dtype} {list(table.shape)} on {table.device}"
        )


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Of what is like constant input time is the outermost dimension."""
    strides = (b[0].numel(), *b.stride()[1:]) if is_constant(b) else b.stride()
    return all(s == t or n == 1 for s, t, n in zip(a.stride(), strides, b.shape, strict=True))


def dense_steps(x: Tensor) -> Tensor:
    """Time steps for a neuron: dense, or constant input whose one step is dense."""
    return dense(x[0]).expand(x.shape) if is_constant(x) else dense(x)


def with_layout_of(t: Tensor, like: Tensor, name: str, dtype: torch.dtype | None = None) -> Tensor:
    """Itself where its layout is that of ``like``, dense; a copy in that layout otherwise."""
    dtype = dtype or like.dtype
    if t.dim() != like.dim() or t.numel() != like.numel() or t.dtype != dtype or t.device != like.device:
        raise ValueError(f"stdano: {name} must have the shape, dtype and device that x requires")
    if t.numel() == 0 or same_layout(t, like):
        return t
    return torch.empty_like(like, dtype=dtype).copy_(t)


def empty_state(x: Tensor) -> Tensor:
    """An uninitialised float32 tensor for a state of x: its shape less the time, its order of dimensions."""
    if x.shape[0] > 0:
        return torch.empty_like(x.select(0, 0), dtype=torch.float32)
    return x.new_empty(x.shape[1:], dtype=torch.float32)


def make_geometry(x: Tensor, channels: int) -> Geometry:
    """Of a dense x [T, B, C, ...], or of what is like constant input."""
    T = x.shape[0]
    N = x[:1].numel() if T > 0 else x.shape[1:].numel()
    inner = x.stride(0) if T > 1 and N > 0 and not is_constant(x) else max(N, 1)
    if channels == 1:
        return Geometry(T, N, inner, 1, max(N, 1))
    if T > 0 and N > 0:
        stride = x.stride(2)
        return Geometry(T, N, inner, channels, stride // T if T > 1 and stride > inner else stride)
    return Geometry(T, N, inner, channels, max(x.shape[3:].numel(), 1))  # a state is then contiguous
