"""Devices, precision and processes, by Lightning Fabric."""

from __future__ import annotations

import os

import torch
from lightning_fabric import Fabric
from torch import Tensor

from stdano_kernels.backends import select

from ..settings import RunSettings


def make_fabric(run: RunSettings) -> Fabric:
    """A launched Fabric: one process, or those that torchrun or ``devices`` made.

    Raises:
        ValueError: ``devices`` or ``num_nodes`` contradict torchrun, or there are not so many GPUs.
    """
    devices, nodes = run.devices or 1, run.num_nodes
    if "LOCAL_WORLD_SIZE" in os.environ:  # under torchrun
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        if run.devices not in (0, local):
            raise ValueError(f"devices must be 0 or torchrun's {local} processes on this machine, got {run.devices}")
        devices, nodes = local, world // local
    cores = os.cpu_count() or 1
    gpus = torch.cuda.device_count() if run.accelerator != "cpu" and torch.cuda.is_available() else 0
    if run.accelerator == "cuda" and gpus == 0:
        raise ValueError("accelerator must be cpu or auto here, where torch finds no GPU; got cuda")
    if 0 < gpus < devices:
        raise ValueError(f"devices must be at most {gpus}, the GPUs that torch finds here, got {devices}")
    if gpus == 0 and devices > max(8, cores):
        raise ValueError(f"devices must be at most {max(8, cores)} on this machine's {cores} cores, got {devices}")
    strategy = run.strategy
    if devices * nodes > 1:
        strategy = "ddp_find_unused_parameters_true" if run.find_unused_parameters else "ddp"
    fabric = Fabric(
        accelerator="cuda" if gpus else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=run.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def check_backend(backend: str, device: torch.device) -> None:
    """Raises ValueError where a backend does not serve tensors on the device."""
    try:
        select(backend, torch.empty(0, device=device))
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def total(fabric: Fabric, *numbers: Tensor | float) -> list[float]:
    """The sums over all processes, in double."""
    return Reading(fabric, *numbers).values()


class Reading:
    """Numbers on their way from the device to the host: their sums over all processes.

    The copy has a stream of its own. So :meth:`values` waits for what was enqueued before, and the device need not be
    done with what came later.

    Args:
        fabric: of the run.
        numbers: of the host, or on the run's device with no dimension; all are summed in double.
    """

    def __init__(self, fabric: Fabric, *numbers: Tensor | float) -> None:
        self._done: torch.cuda.Event | None = None
        # A number of the host is filled in by a kernel: a copy of it to the device would be waited for.
        parts = [
            number.detach().double() if isinstance(number, Tensor) else _filled(number, fabric.device)
            for number in numbers
        ]
        values = torch.stack(parts)
        if values.device.type != "cuda":
            self._values = _summed(fabric, values)
            return
        stream = torch.cuda.Stream(values.device)
        stream.wait_stream(torch.cuda.current_stream(values.device))
        with torch.cuda.stream(stream):
            summed = _summed(fabric, values)
            self._values = torch.empty(summed.shape, dtype=summed.dtype, pin_memory=True)
            self._values.copy_(summed, non_blocking=True)
            self._done = stream.record_event()
        values.record_stream(stream)

    def values(self) -> list[float]:
        if self._done is not None:
            self._done.synchronize()
        return self._values.tolist()


def _filled(number: float, device: torch.device) -> Tensor:
    return torch.full((), number, dtype=torch.float64, device=device)


def _summed(fabric: Fabric, values: Tensor) -> Tensor:
    if fabric.world_size > 1:
        torch.distributed.all_reduce(values)  # Fabric's own has a barrier in front, for which the host would wait
    return values
