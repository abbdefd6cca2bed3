"""Spiking VGG networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from .blocks import InputConv2d, NormNeuron, SharedDropout, TimeFirst, average_pool, initialise, merged
from .factory import Factory


@dataclass(frozen=True)
class VGGShape:
    """Widths of the layers of each block; the side of the map that the linear layer sees."""

    blocks: tuple[tuple[int, ...], ...]
    head_size: int = 7


VGGS = {
    "vgg-small": VGGShape(((32,), (32, 64), (64,)), head_size=2),
    "vgg11": VGGShape(((64,), (128,), (256, 256), (512, 512), (512, 512))),
    "vgg13": VGGShape(((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))),
    "vgg16": VGGShape(((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)),
}


class Layer(nn.Module):
    """Convolution 3 x 3, BatchNorm, neuron, dropout."""

    def __init__(self, conv: nn.Module, out_channels: int, make: Factory, dropout: float) -> None:
        super().__init__()
        self.conv = conv
        self.activation: NormNeuron = NormNeuron(make.norm(out_channels), make.neuron(out_channels))
        self.dropout: SharedDropout = SharedDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        # The first convolution takes time, and convolves images that are repeated once.
        current = self.conv(x) if isinstance(self.conv, InputConv2d) else merged(self.conv, x)
        return self.dropout(self.activation(current))


class VGG(nn.Module):
    """Blocks of convolution, BatchNorm, neuron and dropout, each with an average pooling that halves the map behind it,
    down to one pixel; an adaptive average pooling; and a linear layer that reads out every time step.

    The linear layer sees ``head_size`` x ``head_size`` pixels, as in the VGG networks of torchvision and of the code
    base that the paper seems to build on. A smaller map is repeated, which multiplies the steps of this layer: 49 times
    for 32 x 32 images and ``head_size`` 7.

    Args:
        blocks: output channels of the layers of each block.
        make: makes norms and neurons, in order of execution.
        T: time steps for images.
        in_channels: of images and frames.
        num_classes: number of classes.
        dropout: share of the spikes that is dropped behind each neuron, the same for all T.
        head_size: see above.

    Forward takes images ``[B, C, H, W]`` or frames ``[T, B, C, H, W]`` and returns logits ``[T, B, classes]``.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[int]],
        make: Factory,
        *,
        T: int,
        in_channels: int,
        num_classes: int,
        dropout: float,
        head_size: int,
    ) -> None:
        super().__init__()
        self.T = T
        self.time_first: TimeFirst = TimeFirst(T, in_channels)
        channels = in_channels
        built: list[nn.Module] = []
        for widths in blocks:
            layers: list[nn.Module] = []
            for width in widths:
                kind = nn.Conv2d if built or layers else InputConv2d
                conv = kind(channels, width, 3, padding=1, bias=False)
                layers.append(Layer(conv, width, make, dropout))
                channels = width
            built.append(nn.Sequential(*layers, Halve()))
        self.blocks: nn.Sequential = nn.Sequential(*built)
        self.pool: nn.AdaptiveAvgPool2d = nn.AdaptiveAvgPool2d(head_size)
        self.head: nn.Linear = nn.Linear(channels * head_size**2, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        features = merged(self.pool, self.blocks(self.time_first(x)))
        return self.head(features.flatten(2))


class Halve(nn.Module):
    """Average pooling 2 x 2 of maps that have more than one pixel a side."""

    def forward(self, x: Tensor) -> Tensor:
        return merged(lambda images: average_pool(images, 2), x) if min(x.shape[3:]) > 1 else x


_Halve = Halve  # pickles of whole networks know it by this name
