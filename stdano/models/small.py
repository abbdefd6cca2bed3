"""A small convolutional spiking network for small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..base import BaseNode
from ..neurons import NEURONS


def merged(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a layer without time, such as a convolution, to ``[T, B, ...]``: to all T*B images at once."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class ConvNeuron(nn.Module):
    """Convolution 3 x 3, BatchNorm over the merged T*B, neuron: ``[T, B, C, H, W]`` to the same with other C."""

    def __init__(self, in_channels: int, out_channels: int, neuron: BaseNode) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.neuron = neuron

    def current(self, x: Tensor) -> Tensor:
        """The neuron's input for images ``[N, C, H, W]``."""
        return self.norm(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(merged(self.current, x))


class SmallConvNet(nn.Module):
    """Convolution-BatchNorm-neuron blocks, average pooling, and a linear layer that reads out every time step.

    Direct input encoding: the image itself is the input of each of the T steps. The first convolution and its
    BatchNorm give the same result at each of them, so they are computed once and repeated; BatchNorm's statistics
    are those over T*B, but for the unbiased variance's n/(n - 1), with n smaller by the factor T.

    Every second block is followed by an average pooling that halves height and width; the last block by an adaptive
    one to 2 x 2, so that any image of 4 x 4 pixels or more fits.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        neuron: ``"LIF"``, ``"LLIF"`` (default) or ``"SLIF"``.
        T: number of time steps, 1 or more; default 4.
        channels: output channels of the blocks, one or more; default (32, 32, 64).
        dropout: share of the features that the linear layer does not see in training, at least 0 and below 1. The
            mask is the same for all T, since another one at each step would add noise in time.
        settings: arguments of the neurons, such as ``tau``, ``decay``, ``surrogate_function`` or ``backend``.

    Raises:
        ValueError, TypeError: an argument is wrong.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        neuron: str = "LLIF",
        T: int = 4,
        channels: Sequence[int] = (32, 32, 64),
        dropout: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__()
        if neuron not in NEURONS:
            raise ValueError(f"neuron must be one of {', '.join(map(repr, NEURONS))}, got {neuron!r}")
        if T < 1:
            raise ValueError(f"T must be 1 or more, got {T!r}")
        if not channels or min(channels) < 1:
            raise ValueError(f"channels must be one or more numbers of 1 or more, got {channels!r}")
        self.T = T
        sizes = (in_channels, *channels)
        first, *others = (ConvNeuron(*pair, NEURONS[neuron](**settings)) for pair in pairwise(sizes))
        self.first, self.others = first, nn.ModuleList(others)
        self.pool = nn.AvgPool2d(2)
        self.last_pool = nn.AdaptiveAvgPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * channels[-1], num_classes)

    def forward(
        self,
        images: Tensor,  # [B, C, H, W]
    ) -> Tensor:  # [T, B, classes]
        """The logits of every time step; their sum over T is the prediction."""
        current = self.first.current(images)
        x = self.first.neuron(current.expand(self.T, -1, -1, -1, -1))
        for number, block in enumerate(self.others, start=1):
            if number % 2 == 0:
                x = merged(self.pool, x)
            x = block(x)
        features = merged(self.last_pool, x).flatten(2)
        mask = self.dropout(torch.ones_like(features[0]))
        return self.head(features * mask)
