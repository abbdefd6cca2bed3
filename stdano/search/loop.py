"""Layer-wise neuron search (section 4.3 of the paper): weights on one half of the training samples, alpha on the other.

As in DARTS, each step moves alpha first, by the loss on a batch of the other half, and then the weights. In a warm-up,
and between the decisions of :mod:`stdano.search.selection`, weights alone move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Batch
from ..pictures import heatmap
from ..settings import SearchSettings, run_settings
from ..training.devices import Reading
from ..training.engine import Progress, Run
from ..training.evaluation import Evaluation
from ..training.folder import last_state
from ..training.guard import Interrupt
from ..training.loss import predict
from ..training.report import Row
from ..training.setup import mixed
from .architect import Architect, alphas, kept, super_neurons, weights
from .architecture import Architecture, chosen, entropies
from .report import write_alphas
from .selection import Perturbation
from .supernet import to_super

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARCHITECTURE, ALPHAS, HEATMAP = "architecture.json", "alphas.csv", "alphas.png"


class SearchRun(Run):
    """One search; see :class:`stdano.training.engine.Run`."""

    command = "search"
    settings: SearchSettings

    def build(self, model: nn.Module | None) -> nn.Module:
        candidates = self.settings.search.candidates
        if model is None:
            return self.create("super", candidates=candidates)
        return model if alphas(model) else to_super(model, self.sample(), candidates)

    def trained(self) -> list[nn.Parameter]:
        for alpha in alphas(self.plain).values():
            alpha.requires_grad_(False)  # the weights' backward, and DDP, leave it alone
        return weights(self.plain)

    def set_up(self) -> None:
        options = self.settings.search
        self.architect = Architect(self.plain, options.alpha_lr, options.alpha_weight_decay, options.order)
        for_weights, for_alpha = self.halves()
        self.train_batches = self.batches("train", for_weights)
        self.count = len(for_weights)  # those for alpha are as many, or one more
        self.alpha_batches = self.batches("train", for_alpha, stream=1)
        self.history: list[dict[str, Any]] = []
        self.perturbation = (
            Perturbation(self.plain, self.settings.optimiser.seed) if options.selection == "perturbation" else None
        )

    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """The training samples for the weights, and the others, one more where their number is odd, for alpha."""
        count = len(self.source.train)
        if count < 2:
            raise ValueError(f"data must have 2 training samples or more for a search, got {count}")
        order = np.random.default_rng(self.settings.optimiser.seed).permutation(count)
        return np.sort(order[: count // 2]), np.sort(order[count // 2 :])

    @property
    def tuning(self) -> bool:
        """Whether layers are being decided."""
        return self.perturbation is not None and self.perturbation.began is not None

    def stream(self, epoch: int, start: int) -> Iterator[tuple[Batch, ...]]:
        if epoch < self.settings.search.warmup or self.tuning:
            return super().stream(epoch, start)
        return zip(self.train_batches.epoch(epoch, start), self.alpha_batches.epoch(epoch, start), strict=False)

    def step(self, batches: tuple[Batch, ...], interrupt: Interrupt) -> bool:
        batch, *others = batches
        for alpha_batch in others:
            self.alpha_step(batch, alpha_batch)
        return self.weight_step(batch, interrupt)

    def alpha_step(self, batch: Batch, alpha_batch: Batch) -> None:
        self.model.train()
        reading: Reading | None = None

        def alpha_loss() -> Tensor:
            nonlocal reading
            with self.fabric.autocast():
                loss, logits, labels = self.loss(self.plain, alpha_batch)
            right = (predict(logits.detach()) == labels).sum()
            reading = Reading(self.fabric, loss.detach().double() * alpha_batch.total / self.fabric.world_size, right)
            return loss

        def weight_loss() -> Tensor:
            with self.fabric.autocast():
                return self.loss(self.plain, batch)[0]

        scaler = getattr(self.fabric.strategy.precision, "scaler", None)  # with float16 gradients would underflow
        scale = scaler.get_scale() if scaler is not None else 1.0
        self.architect.step(alpha_loss, weight_loss, self.sgd, self.average, scale)
        assert reading is not None
        loss_sum, correct = reading.values()
        self.check_finite("the loss for alpha", loss_sum / alpha_batch.total, alpha_batch)
        self.add(alpha_loss=loss_sum, alpha_correct=correct, alpha_seen=alpha_batch.total)

    def average(self, tensors: list[Tensor]) -> None:
        """Means over the processes, in place."""
        if self.fabric.world_size > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)
                tensor /= self.fabric.world_size

    def columns(self) -> Row:
        sums = self.progress.sums
        seen = sums.get("alpha_seen", math.nan)  # none in an epoch of weights alone
        return {
            "alpha_loss": sums.get("alpha_loss", 0.0) / seen,
            "alpha_accuracy": sums.get("alpha_correct", 0.0) / seen,
            "entropy": float(np.mean(entropies(self.plain))),
        }

    def epoch_done(self, result: Evaluation) -> None:
        values = [alpha.tolist() for alpha in alphas(self.plain).values()]
        self.history.append({"epoch": self.progress.epoch, "alphas": values, "neurons": chosen(self.plain)})
        deciding = self.perturbation
        if deciding is None or not self.searched():
            return
        if deciding.began is None:
            deciding.began = self.progress.epoch
        if (self.progress.epoch - deciding.began) % self.settings.search.tune_epochs == 0:
            deciding.decide(self.losses)
            self.history[-1]["neurons"] = chosen(self.plain)

    def searched(self) -> bool:
        """Whether alpha has moved for the last time."""
        patience = self.settings.search.patience
        last = [entry["neurons"] for entry in self.history[self.settings.search.warmup :]][-patience - 1 :]
        settled = 0 < patience < len(last) and len(set(last)) == 1
        return self.tuning or settled or super().is_over()

    def is_over(self) -> bool:
        return self.searched() if self.perturbation is None else self.perturbation.done

    def most_epochs(self) -> int:
        between = len(self.perturbation.order) - 1 if self.perturbation else 0
        return super().most_epochs() + between * self.settings.search.tune_epochs

    def next_rate(self) -> None:
        if not self.tuning:
            return super().next_rate()
        for group in self.sgd.param_groups:
            group["lr"] = self.settings.search.tune_lr

    def losses(self, changes: Sequence[Callable[[], None]]) -> list[float]:
        """The loss on the half for alpha after each of some changes of the network, all with the same random numbers
        and the statistics of each batch."""
        sums = torch.zeros(len(changes), dtype=torch.float64, device=self.fabric.device)
        epoch, seen = self.progress.epoch, 0
        self.model.train()
        with kept(list(self.plain.buffers())), torch.no_grad(), self.fabric.autocast():
            for step, batch in enumerate(self.alpha_batches.epoch(epoch, 0)):
                if step == self.steps:
                    break
                for number, change in enumerate(changes):
                    change()
                    torch.manual_seed(mixed(self.settings.optimiser.seed, epoch, step, self.fabric.global_rank))
                    sums[number] += self.loss(self.plain, batch)[0].double() * batch.total
                seen += batch.total
        self.average([sums])
        values = [float(value) / seen for value in sums]
        for value in values:
            self.check_finite("the loss without a candidate", value, batch)
        return values

    def remark(self) -> str:
        return f"  entropy {self.progress.rows[-1]['entropy']:.3f}  {self.history[-1]['neurons']}"

    def title(self) -> str:
        return "search"

    def extra_state(self) -> dict[str, Any]:
        deciding = {"perturbation": self.perturbation.state_dict()} if self.perturbation else {}
        return {"architect": self.architect.state_dict(), "history": self.history, **deciding}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.architect.load_state_dict(state["architect"])
        self.history = state["history"]
        if self.perturbation is not None:
            self.perturbation.load_state_dict(state["perturbation"])

    def report(self) -> None:
        super().report()
        if self.fabric.is_global_zero:
            write_alphas(self.folder / ALPHAS, list(alphas(self.plain)), self.names(), self.history)

    def names(self) -> tuple[str, ...]:
        """Of the candidates, in the order of alpha."""
        return next(iter(super_neurons(self.plain).values())).neurons

    def pictures(self) -> dict[str, Figure]:
        return {HEATMAP: heatmap.search(self.history, self.names()), **super().pictures()}

    def architecture(self) -> Architecture:
        """What was found so far."""
        progress = self.progress
        return Architecture.from_model(
            self.plain,
            settings=self.settings,
            fingerprint=self.fingerprint,
            device_hours=progress.total_seconds * self.fabric.world_size / 3600,
            epochs=progress.epoch,
            test_accuracy=progress.rows[-1]["test_accuracy"],
            name=self.given or None,
            losses=self.perturbation.by_layer() if self.perturbation else None,
        )

    def finish(self) -> Architecture:
        """Saves what was found."""
        found = self.architecture()
        if self.fabric.is_global_zero:
            found.save(self.folder / ARCHITECTURE)
        self.fabric.barrier()
        return found


def search(
    settings: SearchSettings,
    folder: str | Path,
    *,
    model: nn.Module | None = None,
    after_step: Callable[[Progress], None] | None = None,
) -> Architecture:
    """Searches a neuron for each layer, in a new folder: architecture.json, alphas.csv, alphas.png, and the files of a
    training run for the network of super neurons.

    Args:
        settings: what to search in, and how.
        folder: new or empty.
        model: a network to search in instead of the one that the settings name: any module with spiking layers of
            stdano or SpikingJelly that takes ``[T, B, C, H, W]`` and returns logits ``[T, B, classes]``. Its spiking
            layers become super neurons, in place.
        after_step: called with the progress after every step.

    Returns:
        What was found, with the digit string in ``neurons``.

    Raises:
        ValueError, TypeError: a setting is wrong, or the folder is not empty; nothing is written then.
        OSError: the folder cannot be written, or the disk has no room for the checkpoints.
        Diverged: a loss is not finite.
        Interrupted: after Ctrl-C; the position is saved.
    """
    run = SearchRun(settings, Path(folder), model)
    run.start(after_step)
    return run.finish()


def resume(
    folder: str | Path, *, model: nn.Module | None = None, after_step: Callable[[Progress], None] | None = None
) -> Architecture:
    """Goes on with the search in a folder, from its last checkpoint; otherwise as :func:`search`.

    Raises:
        ValueError: the folder does not hold a search, its checkpoint is damaged, its network was given and is not
            given again, or its data have changed.
    """
    folder = Path(folder)
    settings = run_settings(folder, SearchSettings)
    state = last_state(folder, SearchRun.command, model)
    run = SearchRun(settings, folder, model)
    run.restore(state)
    run.train(after_step)
    return run.finish()
