"""Run folders as a report reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..models import ablations, neuron_string
from ..nodes.candidates import candidate, name_of, names_in, short
from ..search import Architecture
from ..search.loop import ALPHAS, ARCHITECTURE
from ..search.report import read_alphas
from ..settings import SETTINGS, SearchSettings, TrainSettings, is_search, run_settings
from ..training.checkpoint import load_checkpoint
from ..training.folder import LAST
from ..training.report import Row, read_metrics


@dataclass(frozen=True)
class Run:
    """A training run or a search.

    Attributes:
        name: of its folder, below the folder that all runs of the report are in.
        folder: where it is.
        settings: of the run.
        rows: of its metrics.csv, one an epoch.
        history: of a search, an entry an epoch: ``epoch``, ``alphas``, ``neurons``. Else empty.
        architecture: what the search has found; None before its end, and for a training run.
        given: class of a network that was given in Python instead of named by the settings; else empty.
    """

    name: str
    folder: Path
    settings: TrainSettings
    rows: list[Row]
    history: list[Mapping[str, Any]]
    architecture: Architecture | None
    given: str = ""

    @property
    def is_search(self) -> bool:
        return isinstance(self.settings, SearchSettings)

    @property
    def candidates(self) -> list[str]:
        """Of a search."""
        assert isinstance(self.settings, SearchSettings)
        return [name_of(candidate(name)) for name in self.settings.search.candidates]

    @property
    def most_epochs(self) -> int:
        """How many there are, unless a search is over earlier."""
        own = self.settings.optimiser.epochs
        if not isinstance(self.settings, SearchSettings) or self.settings.search.selection == "alpha":
            return own
        return own + (len(self.history[-1]["alphas"]) - 1) * self.settings.search.tune_epochs

    @property
    def network(self) -> str:
        return self.given or self.settings.model.model

    @property
    def neurons(self) -> str:
        """As the settings name them; of a search what it has found so far; empty for a network that was given."""
        if self.is_search:
            return str(self.history[-1]["neurons"])
        return "" if self.given else self.settings.model.neurons

    @property
    def string(self) -> str:
        """The neurons as a string of one a layer."""
        return self.neurons and neuron_string(self.settings.model.model, self.neurons)

    @property
    def flat(self) -> dict[str, Any]:
        """All settings by name."""
        return {name: value for part in asdict(self.settings).values() for name, value in part.items()}


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in folders, each a run's own or one with runs in it (of a demo, an ablation, or one's own), that have
    finished an epoch.

    Raises:
        ValueError: a folder has no such run, or one of its files is damaged.
    """
    found: dict[Path, list[Row]] = {}
    for folder in map(Path, folders):
        inside = [folder, *sorted(folder.iterdir())] if folder.is_dir() else []
        runs = {path.resolve(): read_metrics(path) for path in inside if (path / SETTINGS).is_file()}
        runs = {path: rows for path, rows in runs.items() if rows}
        if not runs:
            raise ValueError(
                f"runs must be folders of runs that have finished an epoch, or hold such runs, got {folder}"
            )
        found |= runs
    top = Path(os.path.commonpath([path.parent for path in found]))
    return [_read(path, str(path.relative_to(top)), rows) for path, rows in found.items()]


def _read(folder: Path, name: str, rows: list[Row]) -> Run:
    searched, path = is_search(folder), folder / ARCHITECTURE
    settings = run_settings(folder, SearchSettings if searched else TrainSettings)
    history = read_alphas(folder / ALPHAS) if searched else []
    found = Architecture.load(path) if searched and path.exists() else None
    try:
        given = str(load_checkpoint(folder / LAST).get("given", ""))
    except ValueError:  # gone or damaged, which is told where its network is needed
        given = ""
    return Run(name, folder, settings, rows, history, found, given)


def by_method(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Training runs whose settings differ in the seed alone are one method, named after what sets it apart."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps({k: v for k, v in run.flat.items() if k not in ("seed", "root", "cache")}, sort_keys=True)
        groups.setdefault(key, []).append(run)
    names = [_method(same[0]) for same in groups.values()]
    apart = len(set(names)) == len(names)
    return {name if apart else same[0].name: same for name, same in zip(names, groups.values(), strict=True)}


def _method(run: Run) -> str:
    """The name of a string in the ablation study where it has one: LIF for 0000; digits; or the neuron that all layers
    have. Other strings are too long, and a given network has none: the run's name."""
    if run.given:
        return run.name
    named = {string: name for name, string in reversed(ablations(run.settings.model.model).items())}
    if run.string in named or run.string.isdigit():
        return named.get(run.string, run.string)
    kinds = set(names_in(run.string))
    return short(kinds.pop()).replace("\n", "") if len(kinds) == 1 else run.name
