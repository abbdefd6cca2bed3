"""Whether a search helps: what it finds, against each candidate in all layers and against strings drawn at random."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from ..analysis.statistics import Interval, interval
from ..files import write_csv
from ..models import neuron_string, num_spiking_layers
from ..nodes.candidates import candidate, joined, name_of
from ..pictures.comparison import comparison
from ..pictures.style import save
from ..settings import SearchSettings, TrainSettings, replace
from ..terminal import console
from ..training import Diverged
from .runs import RUNS, SUMMARY, Trial, check_one_process, complete, complete_search, run_name

PICTURE = "comparison.png"
BY_ALPHA, BY_PERTURBATION, RANDOM = "search, alpha", "search, perturbation", "random"


@dataclass(frozen=True)
class Line:
    """A method over the seeds.

    Attributes:
        method: ``"search, alpha"``, ``"search, perturbation"``, a candidate, or ``"random"``.
        neurons: its string; of a search one for each seed.
        accuracy: from 0 to 1. Of ``"random"`` that of each seed's mean.
        over_random: by how much it is above the mean of the same seed's random strings.
        rank: mean place among the random strings of the same seed, 1 for the best; the average would be ``1 + N/2``.
        firing_rate: spikes a neuron and time step, mean.
    """

    method: str
    neurons: list[str]
    accuracy: Interval
    over_random: Interval | None
    rank: float | None
    firing_rate: float


@dataclass(frozen=True)
class Comparison:
    """All runs, and a line for each method."""

    folder: Path
    trials: list[Trial]

    def of(self, method: str) -> dict[int, list[Trial]]:
        """The trials of a method by seed."""
        out: dict[int, list[Trial]] = {}
        for trial in self.trials:
            if trial.method == method:
                out.setdefault(trial.seed, []).append(trial)
        return out

    @property
    def lines(self) -> list[Line]:
        return [self._line(method) for method in dict.fromkeys(trial.method for trial in self.trials)]

    def _line(self, method: str) -> Line:
        own, drawn = self.of(method), self.of(RANDOM)
        means = {seed: statistics.mean(trial.accuracy for trial in trials) for seed, trials in own.items()}
        rates = [trial.result.last["firing_rate"] for trials in own.values() for trial in trials]
        strings = list(dict.fromkeys(trial.neurons for trials in own.values() for trial in trials))
        above = rank = None
        seeds = [seed for seed in means if seed in drawn]
        if method != RANDOM and seeds:
            others = {seed: [trial.accuracy for trial in drawn[seed]] for seed in seeds}
            above = interval([means[seed] - statistics.mean(others[seed]) for seed in seeds])
            # An equal one counts half, as if a coin were tossed.
            places = [1 + sum((a > means[s]) + (a == means[s]) / 2 for a in others[s]) for s in seeds]
            rank = statistics.mean(places)
        return Line(method, strings, interval(list(means.values())), above, rank, statistics.mean(rates))


def compare_search(
    searching: SearchSettings,
    training: TrainSettings,
    folder: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    random: int = 5,
) -> Comparison:
    """For each seed: a search, whose string by the largest alpha and by perturbation is trained; each candidate in all
    layers; and strings that are drawn at random, evenly, from the same candidates. All trainings have the same settings
    and the seed of their search, so that a search costs its own time besides.

    Runs that are there are gone on with, and kept where they are finished. The table is printed; runs.csv, summary.csv
    and comparison.png have what there is after each run.

    Args:
        searching: settings of the searches; their selection is always both.
        training: settings of the training runs, but for neurons and seeds.
        folder: of the comparison.
        seeds: different numbers, 0 or more.
        random: how many strings are drawn for each seed, 1 or more.

    Raises:
        ValueError: an argument is wrong, or a run in the folder has other settings.
        OSError, Interrupted: as :func:`stdano.training.train`.
        Diverged: the loss of a run was not finite; the first one, after all others are done.
    """
    folder, terminal = Path(folder), console()
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be one or more different ones, got {', '.join(map(str, seeds))}")
    if random < 1:
        raise ValueError(f"random must be 1 or more, got {random}")
    searching = replace(searching, neurons="", selection="perturbation")
    searching.check()
    training.check()
    check_one_process("compare-search", training)
    names = [name_of(candidate(name)) for name in searching.search.candidates]
    study, diverged = Comparison(folder, []), []
    for seed in seeds:
        terminal.print(f"search, seed {seed}", soft_wrap=True)
        try:
            found = complete_search(replace(searching, seed=seed), folder / f"search-seed{seed}")
        except Diverged as error:
            terminal.print(f"seed left out: {error}", soft_wrap=True)
            diverged.append(error)
            continue
        runs = [(BY_ALPHA, found.by_alpha), (BY_PERTURBATION, found.neurons)]
        runs += [(name, neuron_string(training.model.model, name)) for name in names]
        runs += [(RANDOM, text) for text in drawn(training.model.model, names, random, seed)]
        for number, (method, neurons) in enumerate(runs, start=1):
            terminal.print(f"seed {seed}, run {number}/{len(runs)}: {method} ({neurons})", soft_wrap=True)
            try:
                result = complete(replace(training, neurons=neurons, seed=seed), folder / run_name(neurons, seed))
            except Diverged as error:
                terminal.print(f"left out: {error}", soft_wrap=True)
                diverged.append(error)
                continue
            study.trials.append(Trial(method, neurons, seed, result))
            _write(study)
    if study.trials:
        terminal.print(_table(study.lines, str(folder), random))
        terminal.print(f"numbers: {folder / SUMMARY}, {folder / RUNS}; picture: {folder / PICTURE}", soft_wrap=True)
    if diverged:
        raise diverged[0]
    return study


def drawn(model: str, names: Sequence[str], count: int, seed: int) -> list[str]:
    """Different strings for a network, as far as there are, each layer's neuron drawn evenly."""
    layers = num_spiking_layers(model)
    random, out = np.random.default_rng((seed, 15)), dict[str, None]()
    while len(out) < min(count, len(names) ** layers):
        out[joined(names[k] for k in random.integers(len(names), size=layers))] = None
    return list(out)


def _write(study: Comparison) -> None:
    found = study.lines
    runs = [
        {
            "method": trial.method,
            "neurons": trial.neurons,
            "seed": trial.seed,
            "last_accuracy": trial.accuracy,
            "firing_rate": trial.result.last["firing_rate"],
            "seconds": round(sum(row["seconds"] for row in trial.result.rows), 3),
        }
        for trial in study.trials
    ]
    lines = [
        {
            "method": line.method,
            "strings": "; ".join(line.neurons),
            "seeds": line.accuracy.count,
            "last_accuracy": line.accuracy.mean,
            "last_accuracy_half": line.accuracy.half,
            "over_random": "" if line.over_random is None else line.over_random.mean,
            "over_random_half": "" if line.over_random is None else line.over_random.half,
            "rank": "" if line.rank is None else line.rank,
            "firing_rate": line.firing_rate,
        }
        for line in found
    ]
    for name, rows in ((RUNS, runs), (SUMMARY, lines)):
        write_csv(study.folder / name, rows[0], (row.values() for row in rows))
    points = {line.method: [t.accuracy for t in study.trials if t.method == line.method] for line in found}
    save(comparison(points, {line.method: line.accuracy for line in found}), study.folder / PICTURE)


def _table(lines: Sequence[Line], title: str, random: int) -> Table:
    header = ("method", "neurons", "last accuracy", "above random", f"rank (1 to {random + 1})", "firing rate")
    table = Table(*header, title=title)
    for line in lines:
        strings = f"{len(line.neurons)} strings" if line.method == RANDOM else "; ".join(line.neurons)
        above = "" if line.over_random is None else _interval(line.over_random)
        rank = "" if line.rank is None else f"{line.rank:.1f}"
        accuracy = _interval(line.accuracy, " %")
        table.add_row(line.method, strings, accuracy, above, rank, f"{line.firing_rate:.4f}")
    table.caption = "test accuracy after the last epoch: mean over seeds ± half of its 95 % interval (Student's t)"
    return table


def _interval(of: Interval, unit: str = "") -> str:
    return f"{100 * of.mean:.2f}" + ("" if of.count == 1 else f" ± {100 * of.half:.2f}") + unit
