"""The commands: each reads its options, calls one function, and shows what that returns. What only some of them need is
imported by those, so that the others work without it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..settings import DataSettings, ModelSettings, SearchSettings, TrainSettings, replace, run_settings
from ..terminal import console, quoted
from .processes import is_main_process

if TYPE_CHECKING:
    from ..training import Evaluation


def demo(arguments: Sequence[str]) -> None:
    """``stdano demo``."""
    from . import options
    from .demo import demo as run

    given = options.parse("demo", options.Demo, arguments)
    folder = options.run_folder(given.out, "demo")
    with _told_how_to_go_on(folder):
        run(folder, preset=given.preset, seed=given.seed, epochs=given.epochs)
        _finish([folder], given.html, given.open)


def search(arguments: Sequence[str]) -> None:
    """``stdano search``."""
    from ..search import resume
    from ..search import search as run
    from . import options

    given, settings = options.parse_settings("search", options.Search, arguments, SearchSettings)
    if given.resume is not None:
        folder = given.resume
        found = resume(folder)
    else:
        settings = replace(settings, neurons="")
        settings.check()
        folder = options.run_folder(given.out, _name("search", given.preset), settings.run)
        found = run(settings, folder)
    if is_main_process():
        print(f"neurons: {found.neurons}, {found.device_hours:.3g} device hours; alpha: {folder / 'alphas.png'}")
        path = quoted(folder)
        print(f"train with them, and the settings of the search: stdano train --architecture {path}")
        if given.preset:
            command = f"stdano train --preset {given.preset} --architecture {path}"
            print(f"or with the preset's settings for training: {command}")
        _finish([folder], given.html, given.open)


def train(arguments: Sequence[str]) -> None:
    """``stdano train``."""
    from ..presets import get_preset
    from ..training import resume
    from ..training import train as run
    from . import options

    given, settings = options.parse_settings("train", options.Train, arguments, TrainSettings)
    if given.resume is not None:
        resume(given.resume)
        return
    if given.preset is not None:
        get_preset(given.preset).check(settings.model.neurons)
    settings.check()
    run(settings, options.run_folder(given.out, _name("train", given.preset), settings.run))


def evaluate(arguments: Sequence[str]) -> None:
    """``stdano evaluate``."""
    from ..training import evaluate as run
    from . import options

    given = options.parse("evaluate", options.Evaluate, arguments)
    settings = run_settings(given.folder, TrainSettings)
    changes = {name: str(value) for name in ("data", "root", "cache") if (value := getattr(given, name)) is not None}
    data: DataSettings | None = replace(settings, **changes).data if changes else None
    where = {name: getattr(given, name) for name in ("accelerator", "devices", "backend")}
    result = run(given.folder, given.checkpoint, data=data, **where)
    if is_main_process():
        _show(result, settings.model, f"{given.folder}, {given.checkpoint} epoch")


def ablate(arguments: Sequence[str]) -> None:
    """``stdano ablate``."""
    from . import options
    from .ablate import ablate as run

    given, settings = options.parse_settings("ablate", options.Ablate, arguments, TrainSettings)
    folder = options.run_folder(given.out, _name("ablate", given.preset))
    with _told_how_to_go_on(folder):
        run(settings, folder, given.methods, given.seeds)


def compare_search(arguments: Sequence[str]) -> None:
    """``stdano compare-search``."""
    from . import options
    from .compare import compare_search as run

    given, searching = options.parse_settings("compare-search", options.CompareSearch, arguments, SearchSettings)
    _, training = options.parse_settings("compare-search", options.CompareSearch, arguments, TrainSettings)
    if given.search_epochs:
        searching = replace(searching, epochs=given.search_epochs)
    folder = options.run_folder(given.out, _name("compare-search", given.preset))
    with _told_how_to_go_on(folder):
        run(searching, replace(training, neurons=""), folder, seeds=given.seeds, random=given.random)


def report(arguments: Sequence[str]) -> None:
    """``stdano report``."""
    from . import options

    given = options.parse("report", options.Report, arguments)
    _show_report(_write_report(given.folders, given.out, samples=given.samples), given.open)


def presets(arguments: Sequence[str]) -> None:
    """``stdano presets``."""
    from ..presets import details, get_preset, overview
    from ..presets import presets as all_presets

    text = "Named settings: the experiments of the paper (tables 3, 6 and 8), and small ones that run on a CPU."
    parser = argparse.ArgumentParser(prog="stdano presets", description=text)
    parser.add_argument("name", nargs="?", help="shows every setting of this one; without it, a line for each preset")
    name = parser.parse_args(arguments).name
    print(overview(all_presets().values()) if name is None else details(get_preset(name)))


def info(arguments: Sequence[str]) -> None:
    """``stdano info``."""
    from ..info import facts
    from ..info import info as table

    text = "Versions, devices, and which backends work here and why."
    parser = argparse.ArgumentParser(prog="stdano info", description=text)
    parser.add_argument("--json", action="store_true", help="as one JSON object, for bug reports")
    if parser.parse_args(arguments).json:
        print(json.dumps(facts(), indent=2))
        return
    for name, value in table():
        print(f"{name:<18}{value}")


def _finish(folders: Sequence[Path], html: bool, browser: bool) -> None:
    """The report on runs that have just ended. What they found is safe, so that its failure is only told."""
    if not html:
        return
    try:
        path = _write_report(folders)
    except (OSError, ValueError) as error:
        console().print(f"no report: {error}", soft_wrap=True)
    else:
        _show_report(path, browser)


def _write_report(folders: Sequence[Path], out: Path | None = None, **more: int) -> Path:
    from ..report import report as write

    return write(folders, out, tell=lambda text: console().print(f"report: {text}", soft_wrap=True), **more)


def _show_report(path: Path, browser: bool) -> None:
    import webbrowser

    print(f"report: {path}")
    if browser and not webbrowser.open(path.resolve().as_uri()):
        print("open must be given where there is a browser; none was found")


def _name(command: str, preset: str | None) -> str:
    return f"{command}-{preset}" if preset else command


@contextmanager
def _told_how_to_go_on(folder: Path) -> Iterator[None]:
    """Ctrl-C in a command that makes several runs."""
    from ..training import Interrupted

    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        raise KeyboardInterrupt(f"interrupted; go on with the same options and --out {quoted(folder)}") from error


def _show(result: Evaluation, model: ModelSettings, title: str) -> None:
    from rich.table import Table

    from ..models import layer_neurons

    table = Table("", "", "neuron", "firing rate", title=title)
    table.add_row("test accuracy", f"{result.accuracy:.2%}", "", "")
    table.add_row("test loss", f"{result.loss:.4f}", "", "")
    table.add_row("test samples", str(result.samples), "", "", end_section=True)
    table.add_row("all layers", "", "", f"{result.firing_rate:.4f}")
    for number, (neuron, (name, rate)) in enumerate(
        zip(layer_neurons(model.model, model.neurons), result.layer_rates.items(), strict=True), start=1
    ):
        table.add_row(f"layer {number}", name, neuron, f"{rate:.4f}")
    console().print(table)
