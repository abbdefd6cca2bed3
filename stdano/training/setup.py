"""What training, search and evaluation begin with: devices, data, the network and its optimiser."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stdano_kernels import Neuron, packed_spikes

from ..data import Augmentation, Batch, Batches, Encoding, load_data
from ..memory import keep_freed_memory
from ..models import create_model
from ..models.blocks import FEW_CHANNELS
from ..nodes.base import BaseNode
from ..nodes.candidates import check_unchanged, fingerprints
from ..nodes.neurons import stateless
from ..nodes.super_neuron import SuperNeuron
from ..rewrite.fusion import fuse
from ..settings import TrainSettings, replace
from .devices import check_backend, make_fabric
from .evaluation import Evaluation, test
from .loss import tet_loss


class Setup:
    """Everything that the settings name, ready to train.

    Args:
        settings: what to train, and how.
        model: a network instead of the one that the settings name: from input ``[T, B, C, H, W]`` to logits
            ``[T, B, classes]``.
        encoding: how samples become numbers, of a network that was trained before; see
            :func:`stdano.data.load_data`. By default that of the data.

    Raises:
        ValueError, TypeError: a setting is wrong.
    """

    def __init__(
        self, settings: TrainSettings, model: nn.Module | None = None, encoding: Encoding | None = None
    ) -> None:
        settings.check()
        self.fabric = make_fabric(settings.run)  # which, where it starts processes, sets their threads
        self.settings = settings = replace(settings, threads=settings.run.threads or torch.get_num_threads())
        torch.set_num_threads(settings.run.threads)
        check_backend(settings.model.backend, self.fabric.device)
        if settings.run.keep_memory and self.fabric.device.type == "cpu":
            keep_freed_memory()
        with self.fabric.rank_zero_first(local=True):
            self.source = load_data(settings.data, settings.model.T, encoding)
        self.fingerprint = self.source.fingerprint()
        torch.manual_seed(settings.optimiser.seed)
        self.given = "" if model is None else type(model).__name__  # a network that no settings name
        self.plain = self.build(model)
        if settings.run.channels_last and channels_last_is_right(self.plain, self.fabric.device):
            self.plain.to(memory_format=torch.channels_last)
        if settings.run.fuse and not self.given:
            fuse(self.plain)
        options = settings.optimiser
        self.sgd = torch.optim.SGD(
            self.trained(), lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
        )
        self.model, self.optimiser = self.fabric.setup(self.plain, self.sgd)
        self.test_batches = self.batches("test")

    def load_network(self, state: dict[str, Any], path: Path, data: bool = False) -> None:
        """The weights of a checkpoint; ``data``: with other data than the run's.

        Raises:
            ValueError: they are those of another network, or of neurons that were declared otherwise.
        """
        check_unchanged(state.get("neurons", {}), fingerprints(declarations(self.plain)), path)
        try:
            self.plain.load_state_dict(state["model"])
        except (RuntimeError, TypeError) as error:
            message = (
                f"{path} must hold weights of the network that {'is given' if self.given else 'its settings name'}"
            )
            if data and not self.given:
                message = f"data must fit the network of {path.parent}"
            raise ValueError(f"{message}: {shorten(str(error), 400)}") from error

    def build(self, model: nn.Module | None) -> nn.Module:
        """The network."""
        return model if model is not None else self.create(self.settings.model.neurons)

    def create(self, neurons: str, **more: Any) -> nn.Module:
        """The network that the settings name, with other neurons."""
        settings, source = self.settings.model, self.source
        return create_model(
            settings.model,
            neurons,
            T=settings.T,
            in_channels=source.in_channels,
            num_classes=source.num_classes,
            size=source.size,
            width=settings.width,
            dropout=settings.dropout,
            sync_statistics=self.settings.run.sync_statistics,
            **{**neuron_settings(self.settings), **more},
        )

    def trained(self) -> list[nn.Parameter]:
        """The parameters that SGD moves."""
        return list(self.plain.parameters())

    def batches(self, part: str, indices: Any = None, stream: int = 0) -> Batches:
        """The batches of a part of the data, or of the samples ``indices`` in it; ``stream`` sets one order apart from
        another."""
        data, options = self.settings.data, self.settings.optimiser
        cuda, training = self.fabric.device.type == "cuda", part == "train"
        # Workers start anew each epoch, which takes longer than small sets do without them.
        worth_it = cuda and len(getattr(self.source, part)) >= 10_000
        automatic = min(4, (os.cpu_count() or 1) // max(1, torch.cuda.device_count())) if worth_it else 0
        return Batches(
            self.source,
            part,
            batch_size=options.batch_size,
            indices=indices,
            augment=Augmentation.from_settings(data) if training else None,
            seed=mixed(options.seed, stream),
            shuffle=training,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            workers=data.workers if data.workers >= 0 else automatic,
            pin_memory=cuda,
        )

    def loss(self, model: Callable[[Tensor], Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """This process's part of the loss of a step, the logits and the labels. The mean of the parts over the
        processes is the loss of all samples, however they are shared out."""
        logits, labels = self.forward(model, batch)
        share = len(labels) * self.fabric.world_size / batch.total
        return tet_loss(logits.float(), labels, self.settings.optimiser.lam) * share, logits, labels

    def forward(self, model: Callable[[Tensor], Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        values = self.steps_first(batch.values.to(self.fabric.device, non_blocking=True))
        with packed_spikes() if self.packs_spikes else nullcontext(), stateless(self.plain):
            return model(values), batch.labels.to(self.fabric.device, non_blocking=True)

    @property
    def packs_spikes(self) -> bool:
        """Whether spikes are kept as bits: where that is known to cost no time, unless the settings say so."""
        how = self.settings.run.pack_spikes
        return how == "on" or (how == "auto" and self.fabric.device.type == "cpu")

    def sample(self) -> Tensor:
        """The first training sample as the network takes it, on the CPU and not normalised: for its shape."""
        values = torch.from_numpy(np.array(self.source.train.values[:1])).float()  # [1, (T,) C, H, W]
        if self.source.temporal:
            values = values.transpose(0, 1)
        return self.steps_first(values)

    def steps_first(self, values: Tensor) -> Tensor:
        """Images as a network takes them that was given: repeated T times."""
        if self.given and not self.source.temporal:
            return values.expand(self.settings.model.T, *values.shape)
        return values

    def test(self) -> Evaluation:
        """The network on the test samples."""
        if self.fabric.world_size > 1:
            for buffer in self.plain.buffers():  # statistics that are not synchronised are those of the first process
                torch.distributed.broadcast(buffer, 0)
        return test(
            self.fabric,
            self.plain,
            lambda batch: self.forward(self.plain, batch),
            self.test_batches.epoch(0),
            self.settings.optimiser.lam,
        )


def channels_last_is_right(model: nn.Module, device: torch.device) -> bool:
    """Whether a network can be trained with channels innermost in memory, see ``FEW_CHANNELS``."""
    return device.type != "cpu" or not any(
        isinstance(layer, nn.Conv2d)
        and set(layer.kernel_size) == {1}
        and set(layer.stride) != {1}
        and layer.in_channels < FEW_CHANNELS
        for layer in model.modules()
    )


def declarations(model: nn.Module) -> list[type[Neuron]]:
    """What the neurons of a network are declared by."""
    nodes = [type(module).neuron for module in model.modules() if isinstance(module, BaseNode)]
    supers = [module.candidates for module in model.modules() if isinstance(module, SuperNeuron)]
    return [*nodes, *(type(neuron) for candidates in supers for neuron in candidates)]


def neuron_settings(settings: TrainSettings) -> dict[str, Any]:
    """The arguments of the neurons."""
    names = ("tau", "decay", "v_threshold", "surrogate_function", "gamma", "beta", "tau_min", "detach_adapt", "backend")
    return {**{name: getattr(settings.model, name) for name in names}, "alpha": settings.model.surrogate_alpha}


def mixed(seed: int, *position: int) -> int:
    """A seed of its own for every position: an epoch, a step of it, a process."""
    for number in (len(position), *position):
        seed = (seed * 1_000_003 + number + 1) % 2**63
    return seed
