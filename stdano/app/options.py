"""Options of the commands that compute, as tyro reads them: the settings' own fields, without the names of their parts.

What a command decides by itself (the neurons of a search, the seeds of an ablation) is hidden from its options.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import tyro

from ..presets import get_preset
from ..settings import (
    DataSettings,
    ModelSettings,
    OptimiserSettings,
    RunSettings,
    SearchOptions,
    SearchSettings,
    Settings,
    from_json,
    read_settings,
    replace,
)
from .processes import processes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]


@dataclass(frozen=True)
class OpenModel(ModelSettings):
    """The network, whose neurons are found or varied."""

    neurons: tyro.conf.Suppress[str] = ""


@dataclass(frozen=True)
class OpenOptimiser(OptimiserSettings):
    """How weights are trained: SGD, a learning rate that falls as a cosine to 0, TET loss."""

    seed: tyro.conf.Suppress[int] = 0


@dataclass(frozen=True)
class ComparedSearch(SearchOptions):
    """How the search looks for neurons."""

    selection: tyro.conf.Suppress[str] = "perturbation"


@dataclass(frozen=True)
class Demo:
    """Searches neurons, trains the network that was found, trains one with LIF in all layers, and compares the two.

    With --out of an interrupted demo it goes on where that one stood.
    """

    preset: str = "digits-events"
    """what to do it with, see stdano presets"""
    seed: int = 0
    """seed of everything"""
    epochs: int = 8
    """epochs of the search and of each training; 0: the preset's"""
    out: Folder = None
    """folder of the demo; default: runs/demo-DATE-TIME"""
    html: bool = True
    """writes a report at the end, report.html"""
    open: bool = False
    """shows the report in the browser"""


@dataclass(frozen=True)
class Search:
    """Looks for the neuron of each layer: bilevel, weights on one half of the training samples, alpha on the other.

    The result is architecture.json in the folder of the run; stdano train --architecture FOLDER trains what it says.
    """

    preset: Name = None
    """settings to start from, which the options below override; see stdano presets"""
    config: File = None
    """settings to start from: settings.json of a run"""
    resume: Folder = None
    """folder of a search to go on with, with its settings; no other option goes with it"""
    out: Folder = None
    """folder of the search; default: runs/search-PRESET-DATE-TIME"""
    data: DataSettings = field(default_factory=DataSettings)
    model: OpenModel = field(default_factory=OpenModel)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)
    search: SearchOptions = field(default_factory=SearchOptions)
    html: bool = True
    """writes a report at the end, report.html"""
    open: bool = False
    """shows the report in the browser"""


@dataclass(frozen=True)
class Train:
    """Trains a network from scratch: with the neurons that --neurons, a preset or a search (--architecture) gives."""

    preset: Name = None
    """settings to start from, which the options below override; see stdano presets"""
    config: File = None
    """settings to start from: settings.json of a run"""
    architecture: File = None
    """neurons that a search has found: architecture.json, or the folder of the search; without --preset and --config
    the settings of the search, too"""
    resume: Folder = None
    """folder of a run to go on with, with its settings; no other option goes with it"""
    out: Folder = None
    """folder of the run; default: runs/train-PRESET-DATE-TIME"""
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)


@dataclass(frozen=True)
class Evaluate:
    """Tests the network of a training run: accuracy, loss, and the firing rate of each layer."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """folder of the run"""
    checkpoint: Literal["best", "last"] = "best"
    """epoch with the highest test accuracy, or the last one"""
    data: Name = None
    """other data than the run's, with the same classes; normalised as the run's"""
    root: Folder = None
    """folder in which data sets lie; default: the run's"""
    cache: Folder = None
    """folder for decoded images and frames; default: the run's"""
    accelerator: Literal["auto", "cpu", "cuda"] | None = None
    """where it is computed; default: where the run was"""
    devices: int | None = None
    """processes on this machine, one a device; default: the run's"""
    backend: Name = None
    """backend of the neurons, see stdano info; default: the run's"""


@dataclass(frozen=True)
class Ablate:
    """Trains the same network with several choices of neurons and seeds, and compares them.

    With --out of an interrupted ablation it goes on: runs that are finished are kept.
    """

    methods: tuple[str, ...] = ("LIF", "LLIF", "SLIF")
    """LIF, LLIF, SLIF; LLIF-1, SLIF-4 and so on, in one block alone (table 1); another neuron by its name; or strings
    of a neuron a layer"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """a run each, for every method"""
    preset: Name = None
    """settings to start from, which the options below override; see stdano presets"""
    config: File = None
    """settings to start from: settings.json of a run"""
    out: Folder = None
    """folder of the ablation; default: runs/ablate-PRESET-DATE-TIME"""
    data: DataSettings = field(default_factory=DataSettings)
    model: OpenModel = field(default_factory=OpenModel)
    optimiser: OpenOptimiser = field(default_factory=OpenOptimiser)
    run: RunSettings = field(default_factory=RunSettings)


@dataclass(frozen=True)
class CompareSearch:
    """Asks whether a search helps: what it finds by alpha and by perturbation, against each candidate in all layers and
    against strings drawn at random, all trained alike, over several seeds.

    With --out of an interrupted comparison it goes on: runs that are finished are kept.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    """a search each, and its trainings"""
    random: int = 5
    """strings drawn for each seed"""
    search_epochs: int = 0
    """epochs of a search before layers are decided; 0: those of the settings"""
    preset: Name = None
    """settings to start from, which the options below override, those of the search and of the trainings alike"""
    config: File = None
    """settings to start from: settings.json of a search"""
    out: Folder = None
    """folder of the comparison; default: runs/compare-search-PRESET-DATE-TIME"""
    data: DataSettings = field(default_factory=DataSettings)
    model: OpenModel = field(default_factory=OpenModel)
    optimiser: OpenOptimiser = field(default_factory=OpenOptimiser)
    run: RunSettings = field(default_factory=RunSettings)
    search: ComparedSearch = field(default_factory=ComparedSearch)


@dataclass(frozen=True)
class Report:
    """Puts runs on one page: settings, curves, architectures, activity, cost, gradients, dynamics.

    The page, report.html, needs no network. Its pictures (PNG, SVG) and tables (CSV) are beside it.
    """

    folders: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")]
    """folders of runs, or folders with runs in them, such as those of a demo or an ablation"""
    out: Folder = None
    """where the page is written; default: the first folder"""
    samples: int = 256
    """test samples on which networks are looked at"""
    open: bool = False
    """shows the page in the browser"""


def parse(command: str, kind: type[Options], arguments: Sequence[str], default: Options | None = None) -> Options:
    """The options of a command, by tyro; what no argument gives is as in ``default``.

    Raises:
        SystemExit: help was asked for, or the arguments are wrong; both are printed.
    """
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands)
    return cast(Options, tyro.cli(kind, args=arguments, default=default, prog=f"stdano {command}", config=config))


def parse_settings(
    command: str, kind: type[Options], arguments: Sequence[str], settings_kind: type[Settings]
) -> tuple[Options, Settings]:
    """The options of a command that has settings, and those settings: what arguments say, over what a preset, a file or
    a search says, over defaults.

    Raises:
        ValueError: a name or file is wrong, or arguments contradict each other.
        SystemExit: as :func:`parse`.
    """
    fields: dict[str, Any] = {part.name: part for part in dataclasses.fields(kind)}
    first = argparse.ArgumentParser(prog=f"stdano {command}", add_help=False, allow_abbrev=False)
    for name in ("preset", "config", "architecture", "resume"):
        if name in fields:
            first.add_argument(f"--{name}", type=str if name == "preset" else Path)
    given = vars(first.parse_known_args(arguments)[0])
    alone = 1 if any(argument.startswith("--resume=") for argument in arguments) else 2
    if given.get("resume") is not None and len(arguments) > alone:
        raise ValueError(f"resume takes every setting from the run; it goes alone, got {' '.join(arguments)}")
    base = _start(settings_kind, given["preset"], given["config"], given.get("architecture"))
    parts: dict[str, Any] = {part.name: getattr(base, part.name) for part in dataclasses.fields(base)}
    shown = {name: fields[name].default_factory(**vars(part)) for name, part in parts.items()}
    options = parse(command, kind, arguments, kind(**given, **shown))
    return options, settings_kind(**{name: type(part)(**vars(getattr(options, name))) for name, part in parts.items()})


def _start(kind: type[Settings], preset: str | None, config: Path | None, architecture: Path | None) -> Settings:
    """The settings that the arguments override."""
    settings = kind()
    if preset is not None and config is not None:
        raise ValueError(f"preset must not be given beside config, got {preset} and {config}")
    if preset is not None:
        chosen = get_preset(preset)
        settings = cast(Settings, chosen.search if kind is SearchSettings else chosen.train)
    elif config is not None:
        settings = read_settings(config, kind)
    if architecture is not None:
        from ..models import MODELS
        from ..search import Architecture

        found = Architecture.load(architecture / "architecture.json" if architecture.is_dir() else architecture)
        if found.model not in MODELS:
            raise ValueError(
                f"architecture must be of a network that settings name, {architecture} is of {found.model}, which was "
                f"given in Python; convert it there: stdano.convert(net, {found.neurons!r})"
            )
        if preset is None and config is None:
            settings = from_json(json.dumps(found.settings), kind, architecture)
        settings = replace(settings, neurons=found.neurons)
    return settings


def run_folder(out: Path | None, name: str, run: RunSettings | None = None) -> Path:
    """``--out``, or a folder that is named after the time.

    Raises:
        ValueError: several processes would each take another.
    """
    if out is not None:
        return out
    if run is not None and processes(run) > 1:
        raise ValueError("out must be given where several processes run, since the time would not name one folder")
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
