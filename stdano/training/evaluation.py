"""A network on test samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..data import Batch
from .activity import SpikeCounter
from .devices import total
from .loss import predict, tet_loss


@dataclass(frozen=True)
class Evaluation:
    """What a network does on the test samples.

    Attributes:
        loss: TET loss.
        accuracy: share of right answers.
        firing_rate: spikes a neuron and time step.
        layer_rates: the same for each spiking layer.
        samples: number of test samples.
    """

    loss: float
    accuracy: float
    firing_rate: float
    layer_rates: dict[str, float]
    samples: int


@torch.no_grad()
def test(
    fabric: Fabric,
    model: nn.Module,
    forward: Callable[[Batch], tuple[Tensor, Tensor]],  # logits [T, B, classes] and labels [B]
    batches: Iterable[Batch],
    lam: float,
) -> Evaluation:
    """Evaluates a model on the batches of all processes, which may be unequally many samples."""
    model.eval()
    loss_sum, correct = torch.zeros(2, dtype=torch.float64, device=fabric.device)
    seen = 0
    with SpikeCounter(model) as counter:
        for batch in batches:
            if not len(batch.labels):
                continue
            with fabric.autocast():
                logits, labels = forward(batch)
            logits = logits.float()
            loss_sum += tet_loss(logits, labels, lam).double() * len(labels)
            seen += len(labels)
            correct += (predict(logits) == labels).sum()
    loss, right, samples, *counts = total(fabric, loss_sum, correct, seen, *counter.numbers())
    counter.restore(counts)
    return Evaluation(loss / samples, right / samples, counter.rate, counter.rates(), round(samples))
