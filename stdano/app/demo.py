"""The whole method in one go: search neurons, train the network that was found, compare it with plain neurons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from ..models import neuron_string
from ..nodes.candidates import DIGIT_OF, DIGITS, names_in
from ..pictures import curves
from ..pictures.activity import rates
from ..pictures.style import save
from ..presets import get_preset
from ..search import Architecture
from ..settings import SearchSettings, TrainSettings, replace
from ..terminal import console
from ..training import Result, evaluate
from .runs import check_one_process, complete, complete_search

PICTURE, RATES = "comparison.png", "rates.png"
EPOCHS = 8


@dataclass(frozen=True)
class DemoResult:
    """What a demo has found.

    Attributes:
        folder: with the folders search, found and lif, comparison.png and rates.png.
        architecture: the search's result.
        found, lif: the training runs of the network that was found, and of the one with LIF in all layers; the same run
            where the search has found just that.
    """

    folder: Path
    architecture: Architecture
    found: Result
    lif: Result


def demo(folder: str | Path, *, preset: str = "digits-events", seed: int = 0, epochs: int = EPOCHS) -> DemoResult:
    """Searches, trains the network that was found and the same one with LIF in all layers, prints a table of both and
    the paths of the pictures. Parts that are finished in the folder are kept, others gone on with.

    Args:
        folder: new, or of a demo with the same arguments.
        preset: name of the settings; see :func:`stdano.presets.presets`. Default: digits-events.
        seed: of everything; default 0.
        epochs: of the search and of each training; default 8, with which the default preset takes under three minutes
            on a CPU; 0: the preset's.

    Raises:
        ValueError: an argument is wrong, or the folder has something else.
        OSError, Diverged, Interrupted: as :func:`stdano.training.train`.
    """
    folder, chosen = Path(folder), get_preset(preset)
    changes = {"seed": seed, **({"epochs": epochs} if epochs else {})}
    searching: SearchSettings = replace(chosen.search, **changes)
    training: TrainSettings = replace(chosen.train, **changes)
    for settings in (searching, training):
        settings.check()
    check_one_process("demo", training)
    plain = neuron_string(training.model.model, "LIF")

    terminal = console()
    terminal.print(f"1/3: search on {searching.data.data}, {searching.model.model}", soft_wrap=True)
    architecture = complete_search(searching, folder / "search")
    terminal.print(f"2/3: training with {architecture.neurons}", soft_wrap=True)
    found = lif = complete(replace(training, neurons=architecture.neurons), folder / "found")
    if architecture.neurons == plain:
        terminal.print("3/3: left out, the search has chosen LIF in all layers", soft_wrap=True)
    else:
        terminal.print(f"3/3: training with {plain}", soft_wrap=True)
        lif = complete(replace(training, neurons=plain), folder / "lif")
    result = DemoResult(folder, architecture, found, lif)

    runs = {architecture.neurons: found, plain: lif}
    evaluations = {neurons: evaluate(run.folder, "last") for neurons, run in runs.items()}
    save(curves.test_curves({neurons: [run.rows] for neurons, run in runs.items()}), folder / PICTURE)
    kinds = {neurons: names_in(neurons) for neurons in evaluations}
    save(rates({neurons: each.layer_rates for neurons, each in evaluations.items()}, kinds), folder / RATES)
    table = Table(*_HEADER, title=str(folder))
    for row in _rows(result):
        table.add_row(*row)
    terminal.print(table)
    terminal.print(_remark(result), soft_wrap=True)
    pictures = {"alpha of each layer": "search/alphas.png", "accuracy": PICTURE, "firing rates": RATES}
    for name, path in pictures.items():
        terminal.print(f"{name}: {folder / path}", soft_wrap=True)
    return result


_HEADER = ("network", "neurons", "last accuracy", "best accuracy", "firing rate", "time")


def _rows(result: DemoResult) -> list[tuple[str, ...]]:
    found, plain = result.architecture, DIGIT_OF["LIF"] * len(result.architecture.layers)
    accuracy, candidates = f"{found.test_accuracy:.2%}", f"all {len(found.candidates)}"
    rows: list[tuple[str, ...]] = [("search", candidates, accuracy, "", "", f"{3600 * found.device_hours:.0f} s")]
    runs = [("found", found.neurons, result.found)]
    if result.lif is not result.found:
        runs.append(("LIF", plain, result.lif))
    for name, neurons, run in runs:
        last, best = run.last, run.best
        accuracies = (f"{last['test_accuracy']:.2%}", f"{best['test_accuracy']:.2%} (epoch {best['epoch']:.0f})")
        seconds = sum(row["seconds"] for row in run.rows)
        rows.append((name, neurons, *accuracies, f"{last['firing_rate']:.4f}", f"{seconds:.0f} s"))
    return rows


def _remark(result: DemoResult) -> str:
    digits = "Neurons, a digit a layer: " + ", ".join(f"{digit} {name}" for digit, name in DIGITS.items()) + "."
    if result.lif is result.found:
        return digits + " The search has chosen LIF in all layers: there is no other network to compare."
    return digits
