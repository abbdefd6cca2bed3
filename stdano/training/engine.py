"""The loop that training and search share: epochs of steps, tests, checkpoints to go on from.

What a step does depends on the settings, the epoch and the step alone: order and augmentation of the samples are seeded
by them, and so is the random state at the beginning of each step; a checkpoint holds everything else. So on the CPU,
with the same PyTorch and number of threads (which the settings record), a run that was stopped anywhere ends with the
same bits as one that was not.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..data import Batch
from ..files import write_atomically
from ..nodes.candidates import fingerprints
from ..pictures import curves
from ..pictures.style import save
from ..settings import SETTINGS, TrainSettings, to_json
from .activity import SpikeCounter
from .checkpoint import save_checkpoint
from .devices import Reading
from .evaluation import Evaluation
from .folder import BEST, LAST
from .guard import Diverged, Interrupt, Interrupted, check_disk, check_new
from .loss import predict
from .report import METRICS, Display, Row, TensorBoard, best_row, write_metrics
from .setup import Setup, declarations, mixed
from .steps import split, steps_and_least

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE = "curve.png"
REDRAWN = 5  # seconds after which pictures of a run are drawn anew, which takes about one
MEASURED = 25  # firing rates are measured in one of so many steps, since counting reads every spike once more


@dataclass
class Progress:
    """Where a run stands: ``epoch`` (from 0) and ``step`` are the next to do, the sums are those of this epoch."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    waited: float = 0.0
    total_seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


class Run(Setup):
    """One training run. A search (:mod:`stdano.search.loop`) changes the model, what a step does and what is kept.

    Args:
        settings, model: as for :class:`stdano.training.setup.Setup`.
        folder: where the files of the run lie.
    """

    command = "train"

    def __init__(self, settings: TrainSettings, folder: Path, model: nn.Module | None = None) -> None:
        super().__init__(settings, model)
        self.folder = folder
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.sgd, settings.optimiser.epochs)
        self.set_up()
        self.steps, self.least = steps_and_least(self, self.count, len(self.train_batches))
        self.progress = Progress()
        self.drawn = 0, -math.inf  # the epoch that the pictures show, and when they were drawn

    def set_up(self) -> None:
        """What is left to make once the model is on its device."""
        self.train_batches, self.count = self.batches("train"), len(self.source.train)

    def start(self, after_step: Callable[[Progress], None] | None = None) -> None:
        """From the beginning, in a new folder."""
        if self.fabric.is_global_zero:
            check_new(self.folder)
            size = sum(t.numel() * t.element_size() for t in self.plain.state_dict().values())
            check_disk(self.folder, 4 * size + 2**20)  # two checkpoints, one with momentum, and one being written
            text = to_json(self.settings)
            write_atomically(self.folder / SETTINGS, lambda file: file.write(text.encode()))
        self.fabric.barrier()
        self.save()
        self.train(after_step)

    def save(self) -> None:
        state = {
            "model": self.plain.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "progress": dataclasses.asdict(self.progress),
            "settings": to_json(self.settings),
            "fingerprint": self.fingerprint,
            "encoding": dataclasses.asdict(self.source.encoding),
            "given": self.given,
            "neurons": fingerprints(declarations(self.plain)),
            **self.extra_state(),
        }
        if self.fabric.is_global_zero:
            save_checkpoint(self.folder / LAST, state)
        self.fabric.barrier()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Goes to where the last checkpoint stands, see :func:`last_state`; to the beginning without one.

        Raises:
            ValueError: the data or the network are not those of the run.
        """
        if state is None:
            self.save()
            return
        if state["fingerprint"] != self.fingerprint:
            raise ValueError(f"the data of {self.settings.data.data} must be those that {self.folder} began with")
        self.load_network(state, self.folder / LAST)
        try:
            self.optimiser.load_state_dict(state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            self.progress = Progress(**state["progress"])
            self.load_extra_state(state)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            path = self.folder / LAST
            raise ValueError(
                f"{path} must be a checkpoint of a run with these settings, but is not: {error!r}"
            ) from error
        if self.progress.rows:  # a kill may have come between the checkpoint and these files
            self.report()
            self.draw()

    def extra_state(self) -> dict[str, Any]:
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        pass

    def report(self) -> None:
        """Writes the files of numbers that follow from the rows so far."""
        if self.fabric.is_global_zero:
            write_metrics(self.folder / METRICS, self.progress.rows)

    def draw(self) -> None:
        """Draws the pictures of them, where they are not there yet."""
        if self.progress.epoch != self.drawn[0] and self.fabric.is_global_zero:
            self.drawn = self.progress.epoch, time.monotonic()
            for name, figure in self.pictures().items():
                save(figure, self.folder / name)

    def pictures(self) -> dict[str, Figure]:
        """By the names of their files."""
        settings = self.settings
        title = f"{settings.model.model} ({self.title()}) on {settings.data.data}, T = {settings.model.T}"
        return {CURVE: curves.training(self.progress.rows, title)}

    def title(self) -> str:
        return self.settings.model.neurons

    def train(self, after_step: Callable[[Progress], None] | None = None) -> None:
        """All epochs that are left."""
        progress, steps, main = self.progress, self.steps, self.fabric.is_global_zero
        display = Display(self.most_epochs(), steps, main)
        if steps < len(self.train_batches):
            display.note("the last step of an epoch has one sample, too few for BatchNorm with T = 1, and is left out")
        board = TensorBoard(self.folder, progress.epoch + 1) if self.settings.run.tensorboard and main else None
        with display, Interrupt() as interrupt, self._drawn_at_the_end():
            while not self.is_over():
                stream = self.stream(progress.epoch, progress.step)
                rate = 0.0
                while progress.step < steps:
                    began = time.perf_counter()
                    batches = next(stream)
                    progress.waited += time.perf_counter() - began
                    torch.manual_seed(
                        mixed(self.settings.optimiser.seed, progress.epoch, progress.step, self.fabric.global_rank)
                    )
                    with SpikeCounter(self.plain) if progress.step % MEASURED == 0 else nullcontext() as counter:
                        interrupted = self.step(batches, interrupt)
                    if counter is not None:
                        rate = counter.rate
                    progress.step += 1
                    progress.seconds += time.perf_counter() - began
                    sums = progress.sums
                    display.step(
                        progress.epoch,
                        progress.step - 1,
                        loss=sums["loss"] / sums["seen"],
                        accuracy=sums["correct"] / sums["seen"],
                        rate=rate,
                        speed=sums["seen"] / progress.seconds,
                    )
                    if after_step is not None:
                        after_step(progress)
                    if interrupted:
                        self.save()
                        raise Interrupted(self.folder, self.command, bool(self.given))
                row = self.finish_epoch()
                display.epoch(row, self.remark())
                if board is not None:
                    board.write(row)
        display.summary(progress.rows, self.folder)

    @contextmanager
    def _drawn_at_the_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.draw()

    def is_over(self) -> bool:
        return self.progress.epoch >= self.settings.optimiser.epochs

    def most_epochs(self) -> int:
        """How many there are unless the run is over earlier."""
        return self.settings.optimiser.epochs

    def next_rate(self) -> None:
        """Sets the learning rate of the epoch after this one."""
        self.schedule.step()

    def remark(self) -> str:
        """What the line of an epoch says besides."""
        return ""

    def stream(self, epoch: int, start: int) -> Iterator[tuple[Batch, ...]]:
        """What the steps of an epoch take, from one step on."""
        return zip(self.train_batches.epoch(epoch, start), strict=False)

    def step(self, batches: tuple[Batch, ...], interrupt: Interrupt) -> bool:
        """One step; whether any process was interrupted."""
        return self.weight_step(batches[0], interrupt)

    def weight_step(self, batch: Batch, interrupt: Interrupt) -> bool:
        """A step of SGD, unless the loss is not finite."""
        self.model.train()
        self.optimiser.zero_grad()
        *parts, last = split(batch, self.settings.optimiser.accumulate, self.least)
        losses, rights = [], []
        for part in (*parts, last):
            with self.fabric.no_backward_sync(self.model, enabled=part is not last):
                loss, logits, labels = self.loss(self.model, part)
                losses.append(loss.detach().double())
                rights.append((predict(logits.detach()) == labels).sum())
                if part is last:
                    # On its way before backward begins: waiting for it below, the device has backward to do meanwhile.
                    share = batch.total / self.fabric.world_size
                    reading = Reading(self.fabric, sum(losses) * share, sum(rights), interrupt.requested)
                self.fabric.backward(loss)
        loss_sum, correct, interrupted = reading.values()
        self.check_finite("the training loss", loss_sum / batch.total, batch)
        self.optimiser.step()
        self.add(loss=loss_sum, correct=correct, seen=batch.total)
        return bool(interrupted)

    def add(self, **numbers: float) -> None:
        """Adds to the sums of the epoch."""
        sums = self.progress.sums
        for name, number in numbers.items():
            sums[name] = sums.get(name, 0.0) + number

    def check_finite(self, what: str, loss: float, batch: Batch) -> None:
        """Stops the run if a loss is not finite."""
        if math.isfinite(loss):
            return
        with SpikeCounter(self.plain) as counter, torch.no_grad(), self.fabric.autocast():
            self.forward(self.plain, batch)
        progress = self.progress
        raise Diverged(what, loss, progress.epoch + 1, progress.step + 1, counter.rates(), self.folder)

    def finish_epoch(self) -> Row:
        """Tests, records and saves; afterwards the progress stands at the beginning of the next epoch."""
        progress, sums = self.progress, self.progress.sums
        lr = self.optimiser.param_groups[0]["lr"]
        began = time.perf_counter()
        result = self.test()
        progress.total_seconds += progress.seconds + time.perf_counter() - began
        row: Row = {
            "epoch": progress.epoch + 1,
            "train_loss": sums["loss"] / sums["seen"],
            "train_accuracy": sums["correct"] / sums["seen"],
            "test_loss": result.loss,
            "test_accuracy": result.accuracy,
            "firing_rate": result.firing_rate,
            **self.columns(),
            "lr": lr,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(sums["seen"] / progress.seconds, 1),
            "waiting": round(progress.waited / progress.seconds, 4),
        }
        self.progress.rows.append(row)
        progress.epoch += 1
        progress.step, progress.sums, progress.seconds, progress.waited = 0, {}, 0.0, 0.0
        self.epoch_done(result)
        self.next_rate()
        if self.fabric.is_global_zero and best_row(progress.rows) is row:
            best = {
                "model": self.plain.state_dict(),
                "row": row,
                "settings": to_json(self.settings),
                "encoding": dataclasses.asdict(self.source.encoding),
                "given": self.given,
                "neurons": fingerprints(declarations(self.plain)),
            }
            save_checkpoint(self.folder / BEST, best)
        self.save()
        self.report()
        if time.monotonic() - self.drawn[1] > REDRAWN:
            self.draw()
        return row

    def columns(self) -> Row:
        """What a row of the metrics has besides."""
        return {}

    def epoch_done(self, result: Evaluation) -> None:
        """Called before the state after an epoch is saved."""
