"""Training as functions: :func:`train`, :func:`resume`, :func:`evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..data import Encoding
from ..settings import DataSettings, TrainSettings, run_settings
from .checkpoint import load_checkpoint
from .encoding import encoding_of_data
from .engine import BEST, LAST, Progress, Run
from .evaluation import Evaluation
from .report import Row, best_row
from .setup import Setup


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, and the rows of its metrics.csv."""

    folder: Path
    rows: list[Row]

    @property
    def last(self) -> Row:
        """The row of the last epoch."""
        return self.rows[-1]

    @property
    def best(self) -> Row:
        """The row of the epoch with the highest test accuracy."""
        return best_row(self.rows)


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    model: nn.Module | None = None,
    after_step: Callable[[Progress], None] | None = None,
) -> Result:
    """Trains from scratch in a new folder: settings.json, last.pt, best.pt, metrics.csv, curve.png.

    Args:
        settings: what to train, and how.
        folder: new or empty.
        model: a network to train instead of the one that the settings name: any module from input ``[T, B, C, H, W]``
            to logits ``[T, B, classes]``; images are repeated T times. It is trained as it is given, weights included.
        after_step: called with the progress after every step.

    Raises:
        ValueError, TypeError: a setting is wrong, or the folder is not empty; nothing is written then.
        OSError: the folder cannot be written, or the disk has no room for the checkpoints.
        Diverged: the loss is not finite.
        Interrupted: after Ctrl-C; the position is saved.
    """
    run = Run(settings, folder, model)
    run.start(after_step)
    return Result(folder, run.progress.rows)


def resume(
    folder: Path, *, model: nn.Module | None = None, after_step: Callable[[Progress], None] | None = None
) -> Result:
    """Goes on with the run in a folder, from its last checkpoint; otherwise as :func:`train`.

    Raises:
        ValueError: the folder does not hold a training run, or its data have changed.
    """
    run = Run(run_settings(folder, TrainSettings), folder, model)
    run.restore()
    run.train(after_step)
    return Result(folder, run.progress.rows)


def evaluate(
    folder: Path, checkpoint: str = "best", *, data: DataSettings | None = None, model: nn.Module | None = None
) -> Evaluation:
    """The network of a run on test samples, which are normalised as those that it was trained on.

    Args:
        folder: of a training run.
        checkpoint: ``"best"`` (default; the epoch with the highest test accuracy) or ``"last"``.
        data: other data than the run's, with the same classes and as many channels; default the run's own. A folder of
            images needs a test part alone.
        model: the network, where the run trained one that was given to it.

    Raises:
        ValueError: an argument is wrong, the folder does not hold a training run, or the data do not fit the network;
            or an older version made the run, whose mean and deviation are needed from its data, and these are gone.
    """
    files = {"best": BEST, "last": LAST}
    if checkpoint not in files:
        raise ValueError(f"checkpoint must be one of {', '.join(files)}, got {checkpoint!r}")
    settings = run_settings(folder, TrainSettings)
    state = load_checkpoint(folder / files[checkpoint])
    encoding = Encoding(**state["encoding"]) if "encoding" in state else encoding_of_data(settings, folder, data)
    if data is not None:
        settings = dataclasses.replace(settings, data=data)
    setup = Setup(settings, model, encoding)
    try:
        setup.plain.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ValueError(f"data must fit the network of {folder}: {error}") from error
    return setup.test()
