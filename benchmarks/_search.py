"""One step of a search, alpha's and the weights', with super neurons that are computed in several ways.

"fused" is SuperNeuron. Its opponents are what one writes without it: three neurons on one input, BatchNorm of each, and
the weighted sum; with "plain equations", with the reference "backend" or with stdano's neurons ("unfused"). All are the
same network with the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from _composed import plain_super
from _contenders import NEURONS, PLAIN, Function
from _options import LAYOUTS
from torch import Tensor, nn

import stdano_kernels
from stdano import SuperNeuron
from stdano.models import create_model
from stdano.search import Architect
from stdano.search.architect import alphas, weights
from stdano.training import tet_loss

CLASSES = 10
FUSED = "fused"


@dataclass(frozen=True)
class SearchCase:
    """A network and its input."""

    model: str
    width: float
    batch: int
    steps: int
    size: int
    device: str = "cpu"

    @property
    def name(self) -> str:
        return f"{self.model}, width {self.width:g}, B = {self.batch}, T = {self.steps}, {self.size} x {self.size}"


class ComposedNeuron(SuperNeuron):
    """A super neuron as one writes it with PyTorch: its parameters and statistics, and neurons one by one."""

    def __init__(self, num_channels: int, neurons: Sequence[Function]) -> None:
        super().__init__(num_channels)
        self.functions = neurons

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None and self.running_var is not None
        return plain_super(self.functions, self.running_mean, self.running_var, x, self.weights())


WAYS: dict[str, Callable[[int], nn.Module]] = {
    FUSED: SuperNeuron,
    "composed, plain equations": partial(ComposedNeuron, neurons=[PLAIN[name] for name in NEURONS]),
    "composed, reference backend": partial(
        ComposedNeuron, neurons=[partial(getattr(stdano_kernels, name), backend="reference") for name in NEURONS]
    ),
    "unfused": partial(ComposedNeuron, neurons=[getattr(stdano_kernels, name) for name in NEURONS]),
}


def search_step(case: SearchCase, way: str, layout: str, order: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function that makes one step of alpha and one of the weights, and returns both losses. The same for all ways,
    random numbers included; steps are so small that each one does the work of the first."""
    torch.manual_seed(0)
    model = create_model(case.model, WAYS[way], T=case.steps, num_classes=CLASSES, size=case.size, width=case.width).to(
        case.device, memory_format=LAYOUTS[layout]
    )
    images, labels = [], []
    for _ in range(2):
        image = torch.randn(case.batch, 3, case.size, case.size)
        images.append(image.to(case.device).contiguous(memory_format=LAYOUTS[layout]))
        labels.append(torch.randint(CLASSES, (case.batch,)).to(case.device))
    for alpha in alphas(model).values():
        alpha.requires_grad_(False)
    architect = Architect(model, lr=1e-6, order=order)
    optimiser = torch.optim.SGD(weights(model), lr=1e-6, momentum=0.9, weight_decay=5e-4)

    def loss(half: int) -> Tensor:
        return tet_loss(model(images[half]), labels[half])

    def step() -> tuple[Tensor, Tensor]:
        alpha_loss = architect.step(partial(loss, 1), partial(loss, 0), optimiser)
        weight_loss = loss(0)
        weight_loss.backward()
        optimiser.step()
        optimiser.zero_grad()  # the next step's peak is to have these gradients once
        return alpha_loss, weight_loss.detach()

    return step
