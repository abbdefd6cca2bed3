"""From run folders to a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

import stdano_kernels

from ..info import info
from . import networks as of_networks
from . import sections
from .page import write
from .runs import by_method, read_runs

SAMPLES = 256


def report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    samples: int = SAMPLES,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Writes ``report.html``, one page that needs no network, and beside it, in the folder ``report``, its pictures as
    PNG and SVG and its tables as CSV. Runs that differ in their seed alone count as one method.

    Args:
        runs: folders of training runs and searches, or folders with such runs in them, as those of a demo or an
            ablation.
        out: where it is written; default: the first folder.
        samples: test samples on which networks are looked at, at least one batch; the first of each method, up to four.
        tell: is called with what is being done, which can take minutes for large networks.

    Returns:
        The path of the page.

    Raises:
        ValueError: a folder has no run, or a file in it is damaged; or samples is below 1.
        OSError: the page cannot be written.
    """
    if not runs:
        raise ValueError("runs must be one folder or more, got none")
    if samples < 1:
        raise ValueError(f"samples must be 1 or more, got {samples}")
    found = read_runs(runs)
    folder = Path(runs[0] if out is None else out)
    trained = [run for run in found if not run.is_search]
    methods = by_method(trained)
    networks, missing = of_networks.load(methods, samples, tell)
    tell("pictures")
    parts = [
        sections.results(found, methods),
        sections.progress(found, methods),
        sections.architecture([run for run in found if run.is_search]),
        of_networks.activity(networks, missing) if methods else None,
        of_networks.costs(networks),
        of_networks.gradients(networks),
        of_networks.example_neurons(networks),
        sections.paper(found, methods),
        sections.settings(found),
        sections.environment(info()),
        sections.commands(found),
    ]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    versions = f"stdano {stdano_kernels.__version__}, torch {torch.__version__}"
    about = f"{len(found)} run{'s' * (len(found) > 1)}, {now}, {versions}"
    unfinished = sections.unfinished(found)
    if unfinished:
        about += f"; not finished: {', '.join(unfinished)}"
    title = folder.resolve().name
    return write(folder, f"Report on {title}", about, [part for part in parts if part is not None])
