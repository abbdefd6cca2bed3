"""Devices, precision and processes, by Lightning Fabric."""

from __future__ import annotations

import os

import torch
from lightning_fabric import Fabric
from torch import Tensor

from ..settings import RunSettings


def make_fabric(run: RunSettings) -> Fabric:
    """A launched Fabric: one process, or those that torchrun or ``devices`` made.

    Raises:
        ValueError: ``devices`` or ``num_nodes`` contradict torchrun.
    """
    devices, nodes = run.devices or 1, run.num_nodes
    if "LOCAL_WORLD_SIZE" in os.environ:  # under torchrun
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        if run.devices not in (0, local):
            raise ValueError(f"devices must be 0 or torchrun's {local} processes on this machine, got {run.devices}")
        devices, nodes = local, world // local
    strategy = "ddp" if devices * nodes > 1 else run.strategy
    fabric = Fabric(
        accelerator=run.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=run.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def total(fabric: Fabric, *values: float) -> list[float]:
    """The sums over all processes, in double."""
    if fabric.world_size == 1:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    summed = fabric.all_reduce(numbers, reduce_op="sum")
    assert isinstance(summed, Tensor)
    return summed.tolist()
