"""Batches of a data set, ready for a network: what a step sees depends on seed, epoch and step alone.

So a run goes on at any step with the batches that it would have seen, and several processes together see exactly
what one sees, whatever the number of workers.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .augment import Augmentation
from .source import DataSource


class Batch(NamedTuple):
    """The samples of one step that belong to this process.

    ``values`` is float32 ``[B, C, H, W]`` or ``[T, B, C, H, W]``, ``labels`` int64 ``[B]``; ``total`` is the number of
    samples of the step in all processes. B can be 0, see :class:`Batches`.
    """

    values: Tensor
    labels: Tensor
    total: int


class Batches:
    """One part of a data set in batches; every sample exactly once an epoch.

    ``len()`` is the number of steps an epoch. The last step of an epoch has fewer samples where ``batch_size`` does not
    divide their number. If they are fewer than the processes, so that some would have none, then the step is left out
    with ``shuffle``, in all processes; without it, for a test, the others get a batch of 0 samples.

    Args:
        source: the data set; nothing of it is copied, not even into workers.
        part: "train" or "test".
        batch_size: samples a step, in all processes together.
        indices: which samples of the part, all by default.
        augment: how samples are varied; not by default.
        seed: of order and augmentation. Several parts of one data set that are used side by side should have different
            ones.
        shuffle: samples in another random order each epoch, else in order.
        rank, world: this process and their number. A process gets every ``world``-th sample of a step.
        workers: processes that prepare batches in advance.
        pin_memory: batches in page-locked memory, from which copies to a GPU need not be waited for.

    Raises:
        ValueError: an argument is not allowed.
    """

    def __init__(
        self,
        source: DataSource,
        part: str,
        *,
        batch_size: int,
        indices: np.ndarray | None = None,
        augment: Augmentation | None = None,
        seed: int = 0,
        shuffle: bool = False,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if part not in ("train", "test"):
            raise ValueError(f"part must be train or test, got {part!r}")
        if world < 1 or not 0 <= rank < world:
            raise ValueError(f"rank must be at least 0 and below world, got rank {rank} and world {world}")
        if batch_size < world:
            raise ValueError(f"batch_size must be at least the number of processes, {world}, got {batch_size}")
        if workers < 0 or seed < 0:
            raise ValueError(f"workers and seed must be 0 or more, got {workers} and {seed}")
        count = len(getattr(source, part))
        if indices is None:
            indices = np.arange(count)
        if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer) or len(indices) == 0:
            raise ValueError(f"indices must be 1 or more integers, got {indices.dtype} of shape {indices.shape}")
        if indices.min() < 0 or indices.max() >= count:
            limits = f"{indices.min()} to {indices.max()}"
            raise ValueError(f"indices must be at least 0 and below {count}, the samples of {part}, got {limits}")
        augment = augment or Augmentation()
        augment.check(source.size)
        if augment.nda and not source.temporal:
            raise ValueError("nda must be False for images, it is for events, got True")
        steps, last = divmod(len(indices), batch_size)
        self._steps = steps + (last >= world if shuffle else last > 0)
        if self._steps == 0:
            raise ValueError(f"indices must be at least as many as processes, got {len(indices)} for {world}")
        self._prepare = _Steps(source, part, batch_size, indices, augment, seed, shuffle, rank, world)
        self._workers, self._pin_memory = workers, pin_memory

    def __len__(self) -> int:
        return self._steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0, from step ``start`` on; those before it are not prepared.

        Raises:
            ValueError: there is no such epoch or step.
        """
        if epoch < 0 or not 0 <= start <= len(self):
            raise ValueError(f"epoch and start must be 0 or more, start at most {len(self)}, got {epoch} and {start}")
        return iter(
            DataLoader(
                self._prepare,
                batch_size=None,
                sampler=[(epoch, step) for step in range(start, len(self))],
                num_workers=self._workers,
                pin_memory=self._pin_memory,
                multiprocessing_context="fork" if self._workers else None,  # so that workers share the arrays
                worker_init_fn=_ignore_interrupts,
                generator=torch.Generator(),  # or the loader would draw from the global one, which dropout uses
            )
        )


class _Steps(Dataset[Any]):
    """Whole batches by epoch and step."""

    def __init__(
        self,
        source: DataSource,
        part: str,
        batch_size: int,
        indices: np.ndarray,
        augment: Augmentation,
        seed: int,
        shuffle: bool,
        rank: int,
        world: int,
    ) -> None:
        self.source, self.samples, self.batch_size = source, getattr(source, part), batch_size
        self.indices, self.augment, self.seed, self.shuffle = indices, augment, seed, shuffle
        self.rank, self.world = rank, world
        self.order: tuple[int, np.ndarray] = (-1, indices)
        mean, std = (torch.tensor(numbers, dtype=torch.float64)[:, None, None] for numbers in (source.mean, source.std))
        self.scale, self.shift = (1 / (255 * std)).float(), (mean / std).float()

    def __getitem__(self, position: tuple[int, int]) -> Batch:
        epoch, step = position
        if self.shuffle and self.order[0] != epoch:
            order = torch.randperm(len(self.indices), generator=self._generator(epoch, 0))
            self.order = epoch, self.indices[order.numpy()]
        every = self.order[1][step * self.batch_size : (step + 1) * self.batch_size]
        # drawn for all processes, so that their number changes nothing
        draws = self.augment.draw(len(every), self.source.size, self._generator(epoch, step + 1))
        own = slice(self.rank, None, self.world)
        chosen = every[own]
        values = torch.from_numpy(np.asarray(self.samples.values[chosen]))
        if self.source.binary:
            values = (values > 0).to(torch.uint8) * 255
        values = self.augment.apply(values, {name: drawn[own] for name, drawn in draws.items()}, self._normalised)
        return Batch(values, torch.from_numpy(self.samples.labels[chosen].astype(np.int64)), len(every))

    def _normalised(self, values: Tensor) -> Tensor:
        if self.source.temporal:
            values = values.transpose(0, 1)
        values = values.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return values.mul_(self.scale).sub_(self.shift)

    def _generator(self, epoch: int, purpose: int) -> torch.Generator:
        state = np.random.SeedSequence(self.seed, spawn_key=(epoch, purpose)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0]))


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; it is for the main one to decide when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
