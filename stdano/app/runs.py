"""Several runs in one folder, which go on where they were stopped, and their curves in one picture."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..search import Architecture, search
from ..search import resume as resume_search
from ..search.loop import ARCHITECTURE
from ..settings import SETTINGS, SearchSettings, Settings, TrainSettings, replace, run_settings
from ..terminal import quoted
from ..training import Result, resume, train
from ..training.engine import METRICS
from .processes import processes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def complete(settings: TrainSettings, folder: str | Path) -> Result:
    """Trains; or goes on with the run in the folder; or reads it where it is finished.

    Raises:
        ValueError: a setting is wrong, or the run in the folder has other settings.
        OSError, Diverged, Interrupted: as :func:`stdano.training.train`.
    """
    folder = Path(folder)
    if not (folder / SETTINGS).exists():
        return train(settings, folder)
    _check_same(settings, folder, TrainSettings)
    rows = read_metrics(folder)
    return Result(folder, rows) if len(rows) == settings.optimiser.epochs else resume(folder)


def complete_search(settings: SearchSettings, folder: str | Path) -> Architecture:
    """Searches; or goes on; or reads; as :func:`complete`."""
    folder = Path(folder)
    if not (folder / SETTINGS).exists():
        return search(settings, folder)
    _check_same(settings, folder, SearchSettings)
    found = folder / ARCHITECTURE
    return Architecture.load(found) if found.exists() else resume_search(folder)


def read_metrics(folder: Path) -> list[dict[str, float]]:
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


def check_one_process(command: str, settings: TrainSettings) -> None:
    """Raises ValueError where there are several processes, or would be: they would not agree on what is finished."""
    if (count := processes(settings.run)) > 1:
        raise ValueError(f"{command} must run in one process, got {count}")


def plot_accuracy(axis: Axes, curves: Mapping[str, Sequence[Result]]) -> None:
    """Test accuracy over the epochs: the mean of each entry's runs, and the range where there are several. What lies
    below all but the first fifth of the epochs is cut off."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    axis.set_prop_cycle(color=colormaps["tab10" if len(curves) <= 10 else "tab20"].colors)  # type: ignore[attr-defined]
    later = []
    for label, results in curves.items():
        epochs = [row["epoch"] for row in results[0].rows]
        values = [[100 * row["test_accuracy"] for row in result.rows] for result in results]
        columns = list(zip(*values, strict=True))
        later += [value for column in columns[len(columns) // 5 :] for value in column]
        (line,) = axis.plot(epochs, [sum(column) / len(column) for column in columns], label=label)
        if len(results) > 1:
            bounds = [min(column) for column in columns], [max(column) for column in columns]
            axis.fill_between(epochs, *bounds, color=line.get_color(), alpha=0.15, linewidth=0)
    margin = 0.05 * (max(later) - min(later)) + 0.1
    axis.set_ylim(min(later) - margin, max(later) + margin)
    axis.set_xlabel("epoch")
    axis.set_ylabel("test accuracy (%)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend()


def _check_same(wanted: Settings, folder: Path, kind: type[Settings]) -> None:
    saved = run_settings(folder, kind)
    if wanted.run.threads == 0:  # the run has recorded how many there were
        wanted = replace(wanted, threads=saved.run.threads)
    other = [
        f"{name} {value}"
        for part in dataclasses.fields(kind)
        for name, value in vars(getattr(saved, part.name)).items()
        if value != getattr(getattr(wanted, part.name), name)
    ]
    if other:
        raise ValueError(f"out must be a new folder, or one with the same settings; {folder} has {', '.join(other)}")
