"""The training loop: TET loss, SGD with cosine, checkpoints to go on from.

What a step does depends on the settings, the epoch and the step alone: the order of the images is a permutation
seeded by the epoch, their augmentation is seeded by the step, and a checkpoint holds everything else (weights,
optimiser, schedule, random state, sums of the epoch). So on the CPU, with the same PyTorch and number of threads
(which the settings record), a run that was stopped anywhere ends with the same bits as one that was not.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from ..base import BaseNode
from ..data import DATASETS, ImageData
from ..models import SmallConvNet
from ..neurons import reset_net
from ..presets import TrainSettings
from .checkpoint import load_checkpoint, save_checkpoint, write_atomically
from .loss import predict, tet_loss
from .report import Display, Row, plot_curve, write_metrics

CHECKPOINT, SETTINGS, METRICS, CURVE = "checkpoint.pt", "settings.json", "metrics.csv", "curve.png"


@dataclass
class Progress:
    """Where a run stands: ``epoch`` (from 0) and ``step`` are the next to do, the sums are those of this epoch."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


class Interrupted(Exception):
    """Ctrl-C: the run has saved its position in ``folder``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"interrupted; go on with: stdano train --resume {folder}")
        self.folder = folder


class _Interrupt:
    """Turns the first Ctrl-C into a flag, so that no step is left half done; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> _Interrupt:
        self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def start(settings: TrainSettings, folder: Path, after_step: Callable[[Progress], None] | None = None) -> list[Row]:
    """Trains from scratch in a new folder: settings.json, checkpoint.pt, metrics.csv, curve.png.

    Args:
        settings: what to train, and how.
        folder: new or empty.
        after_step: called with the progress after every step.

    Returns:
        The rows of metrics.csv.

    Raises:
        ValueError, TypeError: a setting is wrong, or the folder is not empty; nothing is written then.
        Interrupted: after Ctrl-C.
    """
    settings.check()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"out must be a new or empty folder, {folder} is not; go on with a run by --resume {folder}")
    settings = dataclasses.replace(settings, threads=settings.threads or torch.get_num_threads())
    run = _Run(settings, folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SETTINGS, lambda file: file.write(settings.to_json().encode()))
    run.save()
    return run.train(after_step)


def resume(folder: Path, after_step: Callable[[Progress], None] | None = None) -> list[Row]:
    """Goes on with the run in a folder, from its last checkpoint; otherwise as :func:`start`.

    Raises:
        ValueError: the folder does not hold a run.
        Interrupted: after Ctrl-C.
    """
    settings = TrainSettings.from_json(folder / SETTINGS)
    settings.check()
    state = load_checkpoint(folder / CHECKPOINT)
    run = _Run(settings, folder)
    run.restore(state)
    return run.train(after_step)


class _Run:
    def __init__(self, settings: TrainSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        torch.set_num_threads(settings.threads)
        self.fabric = Fabric(accelerator=settings.accelerator, devices=1, precision=settings.precision)  # type: ignore[arg-type]
        self.fabric.launch()
        self.fabric.seed_everything(settings.seed, verbose=False)
        self.data = _to_device(DATASETS[settings.dataset](), self.fabric.device)
        model = SmallConvNet(
            self.data.train_images.shape[1],
            self.data.num_classes,
            settings.neuron,
            settings.T,
            settings.channels,
            settings.dropout,
            tau=settings.tau,
            decay=settings.decay,
            surrogate_function=settings.surrogate_function,
            alpha=settings.alpha,
            backend=settings.backend,
        )
        optimiser = torch.optim.SGD(
            model.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        self.model, self.optimiser = self.fabric.setup(model, optimiser)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs)
        self.progress = Progress()

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "progress": dataclasses.asdict(self.progress),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "settings": self.settings.to_json(),
        }
        save_checkpoint(self.folder / CHECKPOINT, state)

    def restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.progress = Progress(**state["progress"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random_cuda"])
        if self.progress.rows:  # a kill may have come between the checkpoint and these files
            self.report()

    def report(self) -> None:
        rows, settings = self.progress.rows, self.settings
        write_metrics(self.folder / METRICS, rows)
        plot_curve(self.folder / CURVE, rows, f"{settings.neuron} on {settings.dataset}, T = {settings.T}")

    def train(self, after_step: Callable[[Progress], None] | None) -> list[Row]:
        """All epochs that are left."""
        progress, settings = self.progress, self.settings
        steps = -(-len(self.data.train_labels) // settings.batch_size)
        display = Display(settings.epochs)
        with display, _Interrupt() as interrupt:
            while progress.epoch < settings.epochs:
                order = torch.randperm(len(self.data.train_labels), generator=self._generator(progress.epoch))
                while progress.step < steps:
                    began = time.perf_counter()
                    self.step(order)
                    progress.seconds += time.perf_counter() - began
                    display.step(
                        progress.epoch + 1,
                        progress.step,
                        steps,
                        progress.loss_sum / progress.seen,
                        progress.correct / progress.seen,
                        progress.seen / progress.seconds,
                    )
                    if after_step is not None:
                        after_step(progress)
                    if interrupt.requested:
                        self.save()
                        raise Interrupted(self.folder)
                display.epoch(self.finish_epoch())
        display.summary(progress.rows, self.folder)
        return progress.rows

    def step(self, order: Tensor) -> None:
        progress, settings = self.progress, self.settings
        batch = order[progress.step * settings.batch_size :][: settings.batch_size].to(self.fabric.device)
        images, target = self.data.train_images[batch], self.data.train_labels[batch]
        images = _shifted(images, settings.shift, self._generator(progress.epoch, progress.step))
        self.model.train()
        reset_net(self.model)
        logits = self.model(images)
        loss = tet_loss(logits, target, settings.lam)
        self.optimiser.zero_grad()
        self.fabric.backward(loss)
        self.optimiser.step()
        progress.step += 1
        progress.loss_sum += loss.item() * len(target)
        progress.correct += int((predict(logits.detach()) == target).sum())
        progress.seen += len(target)

    def finish_epoch(self) -> Row:
        """Tests, records and saves; afterwards the progress stands at the beginning of the next epoch."""
        progress = self.progress
        lr = self.optimiser.param_groups[0]["lr"]
        self.schedule.step()
        test_loss, test_accuracy, firing_rate = self.test()
        row: Row = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / progress.seen,
            "train_accuracy": progress.correct / progress.seen,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "firing_rate": firing_rate,
            "lr": lr,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(progress.seen / progress.seconds, 1),
        }
        self.progress.rows.append(row)
        progress.epoch += 1
        progress.step = progress.correct = progress.seen = 0
        progress.loss_sum = progress.seconds = 0.0
        self.save()
        self.report()
        return row

    @torch.no_grad()
    def test(self) -> tuple[float, float, float]:
        """Loss, accuracy, and spikes a neuron and time step over all layers, on the test images."""
        self.model.eval()
        reset_net(self.model)
        accuracy = MulticlassAccuracy(self.data.num_classes, average="micro").to(self.fabric.device)
        images, target = self.data.test_images, self.data.test_labels
        with _SpikeCounter(self.model) as counter:
            logits = self.model(images).float()
        loss = tet_loss(logits, target, self.settings.lam).item()
        return loss, accuracy(predict(logits), target).item(), counter.rate

    def _generator(self, *position: int) -> torch.Generator:
        seed = self.settings.seed
        for number in (len(position), *position):  # distinct for every epoch and every step of it
            seed = (seed * 1_000_003 + number + 1) % 2**63
        return torch.Generator().manual_seed(seed)


class _SpikeCounter:
    """Counts the spikes of all neurons of a model while it is entered."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.spikes, self.neurons = model, 0.0, 0

    def __enter__(self) -> _SpikeCounter:
        nodes = [module for module in self.model.modules() if isinstance(module, BaseNode)]
        self._handles = [node.register_forward_hook(self._count) for node in nodes]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _count(self, module: nn.Module, inputs: tuple, spikes: Tensor) -> None:
        self.spikes += spikes.float().sum().item()
        self.neurons += spikes.numel()

    @property
    def rate(self) -> float:
        return self.spikes / max(self.neurons, 1)


def _shifted(images: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to ``largest`` pixels in both directions; what comes in at the border is empty."""
    if largest == 0:
        return images
    count, channels, height, width = images.shape
    padded = nn.functional.pad(images, [largest] * 4, value=float(images.min()))
    top, left = torch.randint(0, 2 * largest + 1, (2, count, 1), generator=generator)
    rows = (top + torch.arange(height)).to(images.device)[:, None, :, None]
    columns = (left + torch.arange(width)).to(images.device)[:, None, None, :]
    image = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return padded[image, channel, rows, columns]


def _to_device(data: ImageData, device: torch.device) -> ImageData:
    tensors = {name: value.to(device) for name, value in vars(data).items() if isinstance(value, Tensor)}
    return ImageData(**tensors, num_classes=data.num_classes)
