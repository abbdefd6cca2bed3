"""The network of the memory section: VGG-11 with spiking neurons, and the peak memory of its train step.

Its neurons behind BatchNorm in three ways: one function for both (stdano's backends), BatchNorm2d and stdano's neuron
("unfused"), BatchNorm2d and plain equations ("eager"). Counted is everything beyond parameters, running statistics and
the batch itself: activations, their gradients, the parameters' gradients, temporary tensors of all operators. The
convolutions' own temporary tensors are the same each way and depend on the processor's instruction set (oneDNN reorders
its operands): at batch 32 AVX2 adds 57 to 61 MiB over AVX-512. So figures go with a machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from _contenders import PLAIN, Contender, available_backends, ready
from _memory import peak_bytes
from _timing import DTYPES, Case, Timing, parameter_dtype, why
from torch import Tensor, nn

import stdano_kernels

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = (1, 1, 2, 2, 2)  # of each block
CLASSES = 10

Way = Callable[[nn.BatchNorm2d, Tensor], Tensor]  # from images [T, B, C, H, W] to spikes


class NormNeuron(nn.Module):
    """BatchNorm's parameters, and a way to go through it and the neuron."""

    def __init__(self, channels: int, steps: int, way: Way) -> None:
        super().__init__()
        self.norm, self.steps, self.way = nn.BatchNorm2d(channels), steps, way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self.norm, x.unflatten(0, (self.steps, -1))).flatten(0, 1)


class Vgg11(nn.Module):
    """Convolutions 3x3, each with BatchNorm and neuron; average pooling after each block; a linear head."""

    def __init__(self, steps: int, way: Way) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, count in zip(WIDTHS, CONVOLUTIONS, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), NormNeuron(width, steps, way)]
                channels = width
            layers.append(nn.AvgPool2d(2))
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """From ``[T, B, 3, H, W]`` to the mean over time of the outputs, ``[B, 10]``."""
        features = self.layers(x.flatten(0, 1)).mean((2, 3))
        return self.head(features).unflatten(0, x.shape[:2]).mean(0)


def fused(neuron: str, backend: str, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return stdano_kernels.bn_neuron(
        neuron, x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=True, backend=backend
    )


def one_by_one(function: Callable[[Tensor], Tensor], norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return function(norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


def vgg_case(neuron: str, dtype: str, steps: int, batch: int, device: str) -> Case:
    return Case(f"vgg11_{neuron}", "train", dtype, (steps, batch, 3, 32, 32), device)


def vgg_peaks(case: Case) -> list[Timing]:
    """The peak memory of one train step each way, as timings without a time."""
    neuron = case.neuron.removeprefix("vgg11_")
    ways: list[tuple[Contender, Way]] = [
        (ready(name, "", stdano_kernels.bn_neuron), partial(fused, neuron, name))
        for name in available_backends(case.device)
    ]
    own, plain = getattr(stdano_kernels, neuron), PLAIN[neuron]
    ways.append((ready("unfused", "BatchNorm2d, then the neuron", own), partial(one_by_one, own)))
    ways.append((ready("eager", "plain equations", plain), partial(one_by_one, plain)))
    nan, out = math.nan, []
    for contender, way in ways:
        try:
            out.append(Timing(contender, nan, nan, nan, peak=step_peak(case, way)))
        except Exception as error:  # a backend without this function; the others go on
            out.append(Timing(contender, nan, nan, nan, why(error)))
    return out


def step_peak(case: Case, way: Way) -> int:
    """Bytes of one train step at its peak, after one that makes what is made once."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(case.shape, generator=generator).to(case.device, DTYPES[case.dtype])
    labels = torch.randint(CLASSES, case.shape[1:2], generator=generator).to(case.device)
    torch.manual_seed(0)
    model = Vgg11(case.steps, way).to(case.device, parameter_dtype(case.dtype))
    autocast = torch.autocast(
        torch.device(case.device).type, DTYPES[case.dtype], enabled=DTYPES[case.dtype].itemsize == 2
    )

    def step() -> None:
        with autocast:
            loss = F.cross_entropy(model(x), labels)
        loss.backward()

    step()
    model.zero_grad(set_to_none=True)
    return peak_bytes(step, case.device)
