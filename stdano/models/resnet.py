"""Spiking pre-activation ResNet-18."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import FEW_CHANNELS, InputConv2d, NormNeuron, SharedDropout, TimeFirst, initialise, merged
from .factory import Factory

WIDTHS, BLOCKS = (64, 128, 256, 512), 2  # of each stage


class Block(nn.Module):
    """BatchNorm, neuron and convolution, twice, and a shortcut that carries the first neuron's spikes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, make: Factory, dropout: float) -> None:
        super().__init__()
        self.activation1: NormNeuron = NormNeuron(make.norm(in_channels), make.neuron(in_channels))
        self.conv1: nn.Conv2d = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.activation2: NormNeuron = NormNeuron(make.norm(out_channels), make.neuron(out_channels))
        self.dropout: SharedDropout = SharedDropout(dropout)
        self.conv2: nn.Conv2d = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        same = stride == 1 and in_channels == out_channels
        self.skip: int = stride if in_channels < FEW_CHANNELS else 1  # a stride by slicing, which is slower
        stride //= self.skip
        self.shortcut: nn.Identity | nn.Conv2d = (
            nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.activation1(x)
        inner = self.dropout(self.activation2(merged(self.conv1, spikes)))
        carried = spikes[..., :: self.skip, :: self.skip] if self.skip > 1 else spikes
        return merged(self.conv2, inner) + merged(self.shortcut, carried)


class PreActResNet18(nn.Module):
    """ResNet-18 with BatchNorm and neuron before each convolution (He et al., 2016b): 17 spiking layers, two in each of
    eight blocks and one behind the last; the first convolution has none. Adaptive average pooling, a linear layer.

    Args:
        width: factor on the number of channels.
        make: makes norms and neurons, in order of execution.
        T: time steps for images.
        in_channels: of images and frames.
        num_classes: number of classes.
        dropout: share of the spikes that is dropped before the second convolution of each block, and of the features
            before the linear layer; the same for all T.

    Forward takes images ``[B, C, H, W]`` or frames ``[T, B, C, H, W]`` and returns logits ``[T, B, classes]``.
    """

    def __init__(
        self, width: float, make: Factory, *, T: int, in_channels: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        widths = [scaled(channels, width) for channels in WIDTHS]
        self.T = T
        self.time_first: TimeFirst = TimeFirst(T, in_channels)
        self.stem: InputConv2d = InputConv2d(in_channels, widths[0], 3, padding=1, bias=False)
        channels, blocks = widths[0], []
        for stage, out_channels in enumerate(widths):
            for number in range(BLOCKS):
                stride = 2 if stage and not number else 1
                blocks.append(Block(channels, out_channels, stride, make, dropout))
                channels = out_channels
        self.blocks: nn.Sequential = nn.Sequential(*blocks)
        self.activation: NormNeuron = NormNeuron(make.norm(channels), make.neuron(channels))
        self.pool: nn.AdaptiveAvgPool2d = nn.AdaptiveAvgPool2d(1)
        self.dropout: SharedDropout = SharedDropout(dropout)
        self.head: nn.Linear = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.activation(self.blocks(self.stem(self.time_first(x))))
        return self.head(self.dropout(merged(self.pool, spikes).flatten(2)))


def scaled(channels: int, width: float) -> int:
    """A number of channels times a factor; 1 or more."""
    return max(1, round(channels * width))
