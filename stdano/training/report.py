"""What a run leaves behind and shows: metrics (CSV, TensorBoard), a progress bar, a closing table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..files import write_csv
from ..terminal import console, quoted

Row = dict[str, float]
METRICS = "metrics.csv"  # of a run's folder


def write_metrics(path: Path, rows: list[Row]) -> None:
    """All rows so far; the file always fits the checkpoint that holds the same rows."""
    write_csv(path, rows[0], (row.values() for row in rows))


def read_metrics(folder: Path) -> list[Row]:
    """The rows of a run's metrics.csv; none before its first epoch is done."""
    path = folder / METRICS
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        advice = f"stdano train --resume {quoted(folder)} writes it anew"
        raise ValueError(f"{path} must hold the metrics of a run, but is damaged ({error}); {advice}") from error


class TensorBoard:
    """Logs for TensorBoard in a run's folder, by ``torch.utils.tensorboard``.

    Raises:
        ModuleNotFoundError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, next_epoch: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("tensorboard must be installed for it: pip install tensorboard") from error
        # An epoch that was logged, but not saved before a kill, is logged again.
        self._writer = SummaryWriter(str(folder), purge_step=next_epoch)

    def write(self, row: Row) -> None:
        for name, value in row.items():
            if name != "epoch" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()


def best_row(rows: list[Row]) -> Row:
    """The row with the highest test accuracy, the earliest of equals."""
    return max(rows, key=lambda row: row["test_accuracy"])


class Display:
    """The progress bar of a run, and one line for each epoch.

    Args:
        epochs, steps: of the run; steps in an epoch.
        enabled: whether anything is shown: on one of all processes alone.
    """

    epochs: int
    steps: int

    def __init__(self, epochs: int, steps: int, enabled: bool = True) -> None:
        self.console = console(quiet=not enabled)
        self.epochs, self.steps = epochs, steps
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.2%}"),
            TextColumn("firing {task.fields[rate]:.3f}  {task.fields[speed]:.0f} images/s"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        fields: dict[str, Any] = {"epoch": 1, "epochs": epochs, "loss": 0.0, "accuracy": 0.0, "rate": 0.0, "speed": 0.0}
        self._task = self._progress.add_task("", total=epochs * steps, **fields)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def step(self, epoch: int, step: int, **fields: float) -> None:
        """After step ``step`` of epoch ``epoch``, both from 0."""
        shown: dict[str, Any] = {"epoch": epoch + 1, **fields}
        self._progress.update(self._task, completed=epoch * self.steps + step + 1, **shown)

    def epoch(self, row: Row, more: str = "") -> None:
        self.console.print(
            f"epoch {row['epoch']:.0f}/{self.epochs}  loss {row['train_loss']:.4f}  "
            f"train {row['train_accuracy']:.2%}  test {row['test_accuracy']:.2%}  "
            f"firing rate {row['firing_rate']:.3f}  {row['images_per_second']:.0f} images/s, "
            f"{row['waiting']:.1%} waiting{more}",
            soft_wrap=True,
        )

    def note(self, text: str) -> None:
        """Something to know about the run."""
        self.console.print(text, soft_wrap=True)

    def summary(self, rows: list[Row], folder: Path) -> None:
        table = Table("", "epoch", "test accuracy", "test loss", "firing rate", title=str(folder))
        for label, row in (("last", rows[-1]), ("best", best_row(rows))):
            table.add_row(
                label,
                f"{row['epoch']:.0f}",
                f"{row['test_accuracy']:.2%}",
                f"{row['test_loss']:.4f}",
                f"{row['firing_rate']:.3f}",
            )
        self.console.print(table)
