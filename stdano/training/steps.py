"""How the samples of an epoch become steps, and those of a step the parts that are computed one after the other."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

import torch

from ..data import Batch

if TYPE_CHECKING:
    from .setup import Setup


def split(batch: Batch, parts: int, least: int = 1) -> list[Batch]:
    """The samples of a batch in so many parts, or fewer where they are not enough; ``total`` stays the step's. No part
    has fewer than ``least`` samples, unless the batch has."""
    sizes = _sizes(len(batch.labels), parts, least)
    values = batch.values.split(sizes, dim=batch.values.dim() - 4)
    return [Batch(v, labels, batch.total) for v, labels in zip(values, batch.labels.split(sizes), strict=True)]


def _sizes(count: int, parts: int, least: int = 1) -> list[int]:
    size = max(least, -(-count // parts))
    sizes = [size] * (count // size) + [count % size] * (count % size > 0)
    if len(sizes) > 1 and sizes[-1] < least:
        sizes[-2:] = [sizes[-2] + sizes[-1]]
    return sizes


def steps_and_least(setup: Setup, count: int, steps: int) -> tuple[int, int]:
    """How many steps an epoch has, and how many samples a part of a step has at least.

    With T = 1 BatchNorm behind maps of one pixel has one value a channel in a part of one sample, and no statistics.
    There such parts are joined with their neighbours, and a last step with one sample a process is left out.

    Args:
        setup: the network, on its device.
        count: samples of an epoch.
        steps: how many there would be.

    Raises:
        ValueError: no step has more samples.
    """
    options, world = setup.settings.optimiser, setup.fabric.world_size
    full, last = (
        options.batch_size // world if count >= options.batch_size else 0,
        count % options.batch_size // world,
    )
    smallest = min(min(_sizes(size, options.accumulate)) for size in (full, last) if size)
    if setup.settings.model.T > 1 or smallest > 1 or not _fails_alone(setup):
        return steps, 1
    if full < 2 and last < 2:
        raise ValueError(
            f"batch_size must be {2 * world} or more with T = 1, where BatchNorm has one value a channel of a single "
            f"sample, got {options.batch_size} for {count} samples"
        )
    return steps - (last == 1), 2


def _fails_alone(setup: Setup) -> bool:
    """Whether the network cannot be trained on a single sample; tried on a copy."""
    model = copy.deepcopy(setup.plain).train()
    try:
        with torch.no_grad(), setup.fabric.autocast():
            model(setup.sample().to(setup.fabric.device))
    except ValueError as error:
        if re.search("more than (1|one) value", str(error)):  # BatchNorm's of torch, and ours
            return True
        raise
    return False
