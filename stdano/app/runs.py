"""Several runs in one folder, which go on where they were stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ..search import Architecture, search
from ..search import resume as resume_search
from ..search.loop import ARCHITECTURE
from ..settings import SETTINGS, SearchSettings, Settings, TrainSettings, replace, run_settings
from ..training import Result, resume, train
from ..training.report import read_metrics
from .processes import processes

RUNS, SUMMARY = "runs.csv", "summary.csv"  # of a study: its runs, and its methods


@dataclass(frozen=True)
class Trial:
    """A run of a study: ``method``, why it was made, its string of a neuron a layer, the seed, what came out."""

    method: str
    neurons: str
    seed: int
    result: Result

    @property
    def accuracy(self) -> float:
        """On the test samples after the last epoch: the best epoch would be chosen by them."""
        return self.result.last["test_accuracy"]


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


def run_name(neurons: str, seed: int) -> str:
    """Of the folder of a run: the method or string as it is where a folder can be called so, else its beginning and a
    hash."""
    if not re.fullmatch(r"[\w.-]{1,60}", neurons):
        digest = hashlib.sha256(neurons.encode()).hexdigest()[:8]
        neurons = f"{re.sub(r'[^A-Za-z0-9.=]+', '-', neurons)[:40].strip('-')}-{digest}"
    return f"{neurons}-seed{seed}"


def check_one_process(command: str, settings: TrainSettings) -> None:
    """Raises ValueError where there are several processes, or would be: they would not agree on what is finished."""
    if (count := processes(settings.run)) > 1:
        raise ValueError(f"{command} must run in one process, got {count}")


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
