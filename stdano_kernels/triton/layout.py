"""Memory layouts of tensors, the counterpart of ``csrc/tensors.h``: any dense order of dimensions is taken as is."""

from __future__ import annotations

from typing import NamedTuple, overload

import torch
from torch import Tensor


class Geometry(NamedTuple):
    """A dense tensor [T, ...] in memory order: [outer][T][inner], with N = outer*inner neurons."""

    T: int
    N: int
    inner: int
    channels: int  # 1 where no constant differs between channels
    channel_stride: int


def is_dense(x: Tensor) -> bool:
    """Whether x covers every element of a block of memory exactly once, in whatever order of dimensions."""
    if x.numel() == 0 or x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted((st, n) for st, n in zip(x.stride(), x.shape, strict=True) if n > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def dense(x: Tensor) -> Tensor:
    return x if is_dense(x) else torch.empty_like(x).copy_(x)


@overload
def with_layout_of(t: Tensor, like: Tensor, name: str) -> Tensor: ...
@overload
def with_layout_of(t: None, like: Tensor, name: str) -> None: ...
def with_layout_of(t: Tensor | None, like: Tensor, name: str) -> Tensor | None:
    """Itself where its layout is that of ``like``, dense; a copy in that layout otherwise."""
    if t is None:
        return None
    if t.dim() != like.dim() or t.numel() != like.numel() or t.dtype != like.dtype or t.device != like.device:
        raise ValueError(f"stdano: {name} must have the shape, dtype and device that x requires")
    return in_layout_of(t, like, name)


def same_layout(a: Tensor, b: Tensor) -> bool:
    return all(s == t or n == 1 for s, t, n in zip(a.stride(), b.stride(), b.shape, strict=True))


def in_layout_of(t: Tensor, like: Tensor, name: str) -> Tensor:
    """with_layout_of for a tensor that may be of another dtype."""
    if t.dim() != like.dim() or t.numel() != like.numel() or t.device != like.device:
        raise ValueError(f"stdano: {name} must have the shape and device that x requires")
    if t.numel() == 0 or same_layout(t, like):
        return t
    return torch.empty_like(like, dtype=t.dtype).copy_(t)


def empty_state(x: Tensor) -> Tensor:
    """An uninitialised float32 tensor for a state of x: its shape less the time, its order of dimensions."""
    if x.shape[0] > 0:
        return torch.empty_like(x.select(0, 0), dtype=torch.float32)
    return x.new_empty(x.shape[1:], dtype=torch.float32)


def make_geometry(x: Tensor, channels: int) -> Geometry:
    """Of a dense x [T, B, C, ...]."""
    T = x.shape[0]
    N = x[:1].numel() if T > 0 else x.shape[1:].numel()
    inner = x.stride(0) if T > 1 and N > 0 else max(N, 1)
    if channels == 1:
        return Geometry(T, N, inner, 1, max(N, 1))
    if T > 0 and N > 0:
        stride = x.stride(2)
        return Geometry(T, N, inner, channels, stride // T if T > 1 and stride > inner else stride)
    return Geometry(T, N, inner, channels, max(x.shape[3:].numel(), 1))  # a state is then contiguous
