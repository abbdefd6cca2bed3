"""The networks of training.py, each from a function that makes its neurons, so that all ways have the same network.

VGG-11 and ResNet-18 are stdano's. The transformer stands here: it is after Spikformer (Zhou et al., ICLR 2023), small,
for images of 32 x 32. SEW-ResNet-18 (Fang et al., NeurIPS 2021) is SpikingJelly's own definition, with its layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from stdano.models import create_model, merged
from stdano.models.blocks import NormNeuron, TimeFirst
from stdano.models.resnet import Block as ResNetBlock
from stdano.models.resnet import scaled
from stdano.models.vgg import Layer as VGGLayer

EMBEDDING, BLOCKS, HEADS, MLP = 128, 2, 4, 4  # of the transformer; MLP: times as wide inside

NeuronMaker = Callable[[int], nn.Module]  # from the number of channels to a neuron that takes [T, B, C, H, W]


@dataclass(frozen=True)
class NetworkCase:
    """A network and its batch."""

    network: str  # one of NETWORKS
    time_steps: int = 4
    batch: int = 32
    size: int = 32  # height and width in pixels
    width: float = 1.0  # factor on all channels
    classes: int = 10
    device: str = "cpu"
    dtype: str = "float32"  # bfloat16: by autocast
    layout: str = "contiguous"  # of images and weights

    @property
    def name(self) -> str:
        text = f"{self.network}, T = {self.time_steps}, B = {self.batch}, {self.size} x {self.size}, {self.dtype}"
        return text if self.width == 1 else f"{text}, width {self.width:g}"


class Unit(nn.Module):
    """A convolution, BatchNorm and a neuron, on ``[T, B, C, H, W]``."""

    def __init__(self, channels: int, out: int, neuron: NeuronMaker, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False)
        self.activation = NormNeuron(nn.BatchNorm2d(out), neuron(out))

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(merged(self.conv, x))


class SpikingAttention(nn.Module):
    """Self-attention of spikes: no softmax, and a neuron behind the product."""

    def __init__(self, width: int, neuron: NeuronMaker) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (Unit(width, width, neuron) for _ in range(4))
        self.neuron, self.scale = neuron(width), (width // HEADS) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        # [T, B, C, H, W] to [T, B, heads, tokens, C / heads]
        q, k, v = (
            layer(x).flatten(3).unflatten(2, (HEADS, -1)).transpose(3, 4)
            for layer in (self.query, self.key, self.value)
        )
        attended = (q @ k.transpose(3, 4)) @ v * self.scale
        return self.out(self.neuron(attended.transpose(3, 4).reshape(x.shape)))


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each beside what carries its input on."""

    def __init__(self, width: int, neuron: NeuronMaker) -> None:
        super().__init__()
        self.attention = SpikingAttention(width, neuron)
        self.perceptron = nn.Sequential(Unit(width, MLP * width, neuron), Unit(MLP * width, width, neuron))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.perceptron(x)


class Spikformer(nn.Module):
    """Three convolutions that make a token of every 4 x 4 pixels, blocks, the mean over tokens, and a linear layer.

    From images ``[B, 3, H, W]`` to logits ``[T, B, classes]``.
    """

    def __init__(self, case: NetworkCase, neuron: NeuronMaker) -> None:
        super().__init__()
        width = HEADS * scaled(EMBEDDING // HEADS, case.width)
        self.time_first = TimeFirst(case.time_steps, 3)
        self.embed = nn.Sequential(
            Unit(3, width // 2, neuron, 3), Unit(width // 2, width, neuron, 3, 2), Unit(width, width, neuron, 3, 2)
        )
        self.blocks = nn.Sequential(*(TransformerBlock(width, neuron) for _ in range(BLOCKS)))
        self.head = nn.Linear(width, case.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(self.time_first(x))).mean((3, 4)))


class SEWResNet18(nn.Module):
    """SpikingJelly's SEW-ResNet-18 with element-wise addition, from images ``[B, 3, H, W]`` to logits
    ``[T, B, classes]``."""

    def __init__(self, case: NetworkCase, neuron: NeuronMaker) -> None:
        super().__init__()
        from spikingjelly.activation_based import functional
        from spikingjelly.activation_based.model.sew_resnet import sew_resnet18

        self.time_first = TimeFirst(case.time_steps, 3)
        self.net = sew_resnet18(cnf="ADD", spiking_neuron=lambda: neuron(0), num_classes=case.classes)
        functional.set_step_mode(self.net, "m")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.time_first(x))


def _shipped(case: NetworkCase, neuron: NeuronMaker) -> nn.Module:
    settings = dict(T=case.time_steps, num_classes=case.classes, size=case.size, width=case.width)
    return create_model(case.network, neuron, **settings)


def _sew_block() -> type[nn.Module]:
    from spikingjelly.activation_based.model.sew_resnet import BasicBlock

    return BasicBlock


@dataclass(frozen=True)
class Network:
    """How a network is made, what SpikingJelly's memory optimisation checkpoints in it, its batch on a CPU."""

    build: Callable[[NetworkCase, NeuronMaker], nn.Module]
    block: Callable[[], type[nn.Module]]
    batch: int
    smallest: int  # size
    scales: bool = True  # whether it takes a width


NETWORKS = {
    "vgg11": Network(_shipped, lambda: VGGLayer, 32, 32),
    "resnet18": Network(_shipped, lambda: ResNetBlock, 8, 8),
    "spikformer": Network(Spikformer, lambda: TransformerBlock, 32, 4),
    "sew-resnet18": Network(SEWResNet18, _sew_block, 2, 32, scales=False),
}
