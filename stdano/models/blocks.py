"""What the networks are made of. Everything takes and returns ``[T, B, C, H, W]``, all time steps at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from stdano_kernels import packed
from stdano_kernels.constant import is_constant

from ..nodes.link import link_of


@fx.wrap
def flatten(x: Tensor, start: int, end: int) -> Tensor:
    """``x.flatten(start, end)``. Constant input is repeated in its own layout: a reshape would make another one of
    channels-last, which takes an eighth of a train step of vgg-small."""
    repeated = x.clone() if is_constant(x) else x
    return repeated.flatten(start, end)


def merged(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a layer without time, such as a convolution, to ``[T, B, ...]``: to all T*B images at once."""
    return layer(flatten(x, 0, 1)).unflatten(0, x.shape[:2])


# Channels below which a convolution of 1 x 1 with a stride is not to be trusted on x86 processors, with channels
# innermost in memory: oneDNN's backward writes beyond its memory where they are fewer than the numbers of a vector.
FEW_CHANNELS = 16


class TimeFirst(nn.Module):
    """Direct input encoding: images ``[B, C, H, W]`` are the input of each of the T steps, as a view that repeats them;
    frames ``[T, B, C, H, W]`` are taken as they are."""

    in_channels: int

    def __init__(self, T: int, in_channels: int) -> None:
        super().__init__()
        self.T, self.in_channels = T, in_channels

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() not in (4, 5) or x.shape[-3] != self.in_channels:
            raise ValueError(
                f"x must be images [B, {self.in_channels}, H, W] or frames [T, B, {self.in_channels}, H, W], got a "
                f"tensor of shape {list(x.shape)}"
            )
        return x.expand(self.T, *x.shape) if x.dim() == 4 else x

    def extra_repr(self) -> str:
        return f"T={self.T}, in_channels={self.in_channels}"


class InputConv2d(nn.Conv2d):
    """The first convolution, of ``[T, B, C, H, W]``. Images that are repeated T times are convolved once."""

    def forward(self, x: Tensor) -> Tensor:
        if is_constant(x):
            return super().forward(x[0]).expand(x.shape[0], -1, -1, -1, -1)
        return merged(super().forward, x)


class _AveragePool(torch.autograd.Function):
    """Average pooling without overlap. torch's keeps its whole input for backward, of which that needs the shape."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, size: int) -> Tensor:
        return nn.functional.avg_pool2d(images, size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        images, ctx.size = inputs
        ctx.shape = images.shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        size, (height, width) = ctx.size, ctx.shape[-2:]
        of_images = nn.functional.interpolate(grad / size**2, scale_factor=size, mode="nearest")
        rest = width % size, height % size  # what no window has seen
        return nn.functional.pad(of_images, (0, rest[0], 0, rest[1])) if any(rest) else of_images, None


def average_pool(images: Tensor, size: int) -> Tensor:
    """Average pooling of windows ``size`` x ``size`` of ``[N, C, H, W]``, as ``torch.nn.functional.avg_pool2d``; keeps
    nothing for backward."""
    out = _AveragePool.apply(images, size)
    if not packed.mark_pooled(out, images, size**2):
        packed.mark_again(out, images, partial(nn.functional.avg_pool2d, kernel_size=size))
    return out


class SharedDropout(nn.Module):
    """Dropout with the same mask at all time steps, since another one at each would add noise in time.

    Args:
        p: share of the values that are set to 0 in training; the others are divided by ``1 - p``.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        mask = nn.functional.dropout(torch.ones_like(x[0]), self.p)
        out = x * mask
        packed.mark_again(out, x, partial(torch.mul, other=mask.detach()))
        return out

    def extra_repr(self) -> str:
        return f"p={self.p}"


class NormNeuron(nn.Module):
    """BatchNorm over the merged T*B, and the neuron behind it, which :func:`stdano.fuse` makes one kernel."""

    norm: nn.Module
    neuron: nn.Module

    def __init__(self, norm: nn.Module, neuron: nn.Module) -> None:
        super().__init__()
        self.norm, self.neuron = norm, neuron

    def forward(self, x: Tensor) -> Tensor:
        if link_of(self.norm) is not None:  # which takes [T, B, ...] as it is, and repeats nothing
            return self.neuron(self.norm(x))
        return self.neuron(merged(self.norm, x))


def initialise(model: nn.Module) -> None:
    """Convolutions as for ReLU networks by their outputs (He et al., 2015), linear layers N(0, 0.01)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
