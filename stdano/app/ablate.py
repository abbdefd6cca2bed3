"""The ablation study (section 4.2 of the paper): one network with several choices of neurons, over several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from ..files import write_csv
from ..models import neuron_string
from ..pictures import curves
from ..pictures.style import save
from ..settings import TrainSettings, replace
from ..terminal import console
from ..training import Diverged
from ..training.report import Row
from .runs import RUNS, SUMMARY, Trial, check_one_process, complete, run_name

PICTURE = "accuracy.png"


@dataclass(frozen=True)
class Summary:
    """A method over its runs: means, and standard deviations (of the sample; NaN for a single run). Accuracies are from
    0 to 1; the firing rate, spikes a neuron and time step, is that of the last epoch."""

    method: str
    neurons: str
    runs: int
    last_accuracy: float
    last_accuracy_std: float
    best_accuracy: float
    best_accuracy_std: float
    firing_rate: float
    firing_rate_std: float


@dataclass(frozen=True)
class Ablation:
    """All runs of a study, and a summary for each method, both in the order in which the methods were named."""

    folder: Path
    trials: list[Trial]

    @property
    def summaries(self) -> list[Summary]:
        by_method: dict[str, list[Trial]] = {}
        for trial in self.trials:
            by_method.setdefault(trial.method, []).append(trial)
        return [_summary(trials) for trials in by_method.values()]


def ablate(
    settings: TrainSettings,
    folder: str | Path,
    methods: Sequence[str] = ("LIF", "LLIF", "SLIF"),
    seeds: Sequence[int] = (0, 1, 2),
) -> Ablation:
    """Trains with each method and seed, in a folder each: METHOD-seedN, with a hash where METHOD is long. Runs that are
    there are gone on with, and kept where they are finished, so that an interrupted study goes on when it is called
    again; and several processes can work in one folder, each on other methods or seeds.

    The table of means is printed; runs.csv, summary.csv and accuracy.png have what there is after each run.

    Args:
        settings: of all runs, but for their neurons and seeds.
        folder: of the study.
        methods: different ones of what :func:`stdano.models.neuron_string` takes: methods of the paper's ablation
            study, strings of a neuron a layer, or the name of a neuron for all layers.
        seeds: different numbers, 0 or more.

    Raises:
        ValueError: an argument is wrong, or a run in the folder has other settings.
        OSError, Interrupted: as :func:`stdano.training.train`.
        Diverged: the loss of a run was not finite; the first one, after all others are done.
    """
    settings.check()
    check_one_process("ablate", settings)
    for name, given in (("methods", methods), ("seeds", seeds)):
        if not given or len(set(given)) != len(given):
            raise ValueError(f"{name} must be one or more different ones, got {', '.join(map(str, given))}")
    strings = {method: neuron_string(settings.model.model, method) for method in methods}
    runs = {(m, seed): replace(settings, neurons=m, seed=seed) for m in methods for seed in seeds}
    for run in runs.values():
        run.check()
    terminal, study, diverged = console(), Ablation(Path(folder), []), []
    for number, ((method, seed), run) in enumerate(runs.items(), start=1):
        terminal.print(f"run {number}/{len(runs)}: {method} ({strings[method]}), seed {seed}", soft_wrap=True)
        try:
            result = complete(run, study.folder / run_name(method, seed))
        except Diverged as error:
            terminal.print(f"left out: {error}", soft_wrap=True)
            diverged.append(error)
            continue
        study.trials.append(Trial(method, strings[method], seed, result))
        _write(study)
    if study.trials:
        terminal.print(_table(study.summaries, str(folder)))
        terminal.print(
            f"curves: {study.folder / PICTURE}; numbers: {study.folder / SUMMARY}, {study.folder / RUNS}",
            soft_wrap=True,
        )
    if diverged:
        raise diverged[0]
    return study


def _summary(trials: list[Trial]) -> Summary:
    rows = [(trial.result.last, trial.result.best) for trial in trials]
    numbers = (
        [last["test_accuracy"] for last, _ in rows],
        [best["test_accuracy"] for _, best in rows],
        [last["firing_rate"] for last, _ in rows],
    )
    pairs = ((statistics.mean(n), statistics.stdev(n) if len(n) > 1 else float("nan")) for n in numbers)
    return Summary(trials[0].method, trials[0].neurons, len(trials), *(number for pair in pairs for number in pair))


def _write(study: Ablation) -> None:
    runs = [
        {
            "method": trial.method,
            "neurons": trial.neurons,
            "seed": trial.seed,
            "last_accuracy": trial.result.last["test_accuracy"],
            "best_accuracy": trial.result.best["test_accuracy"],
            "best_epoch": int(trial.result.best["epoch"]),
            "firing_rate": trial.result.last["firing_rate"],
            "seconds": round(sum(row["seconds"] for row in trial.result.rows), 3),
        }
        for trial in study.trials
    ]
    for name, rows in ((RUNS, runs), (SUMMARY, [vars(summary) for summary in study.summaries])):
        write_csv(study.folder / name, rows[0], (row.values() for row in rows))

    runs_of: dict[str, list[list[Row]]] = {}
    for trial in study.trials:
        runs_of.setdefault(trial.method, []).append(trial.result.rows)
    save(curves.test_curves(runs_of), study.folder / PICTURE)


def _table(summaries: Sequence[Summary], title: str) -> Table:
    table = Table("method", "neurons", "runs", "last accuracy", "best accuracy", "firing rate", title=title)
    for s in summaries:
        accuracies = (
            _spread(100 * mean, 100 * std, 2, " %")
            for mean, std in ((s.last_accuracy, s.last_accuracy_std), (s.best_accuracy, s.best_accuracy_std))
        )
        rate = _spread(s.firing_rate, s.firing_rate_std, 4)
        table.add_row(s.method, s.neurons, str(s.runs), *accuracies, rate)
    return table


def _spread(mean: float, std: float, digits: int, unit: str = "") -> str:
    return f"{mean:.{digits}f}{'' if std != std else f' ± {std:.{digits}f}'}{unit}"
