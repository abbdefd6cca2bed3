"""What a search leaves behind: alpha of every layer and epoch, as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_csv
from ..nodes.candidates import joined, names_in
from .architecture import entropy, softmax

Entry = Mapping[str, Any]


def write_alphas(path: Path, layers: Sequence[str], candidates: Sequence[str], history: Sequence[Entry]) -> None:
    """A row for each epoch and layer, all of them each time: alpha, its softmax, its entropy in nats, the choice.

    Args:
        path: the CSV file, replaced once all is written.
        layers: names, in the order of ``alphas``; numbered from 1.
        candidates: names of the neurons, in the order of each alpha.
        history: an entry for each epoch so far: ``epoch``, ``alphas`` (a list a layer), ``neurons`` (a string of one a
            layer).
    """
    shares = [f"{column}_{name}" for column in ("alpha", "weight") for name in candidates]
    rows = [
        [entry["epoch"], number, name, *alpha, *softmax(alpha), entropy(alpha), choice]
        for entry in history
        for number, (name, alpha, choice) in enumerate(
            zip(layers, entry["alphas"], names_in(entry["neurons"]), strict=True), 1
        )
    ]
    write_csv(path, ["epoch", "layer", "name", *shares, "entropy", "choice"], rows)


def read_alphas(path: Path) -> list[Entry]:
    """The history that :func:`write_alphas` wrote."""
    entries: dict[int, dict[str, Any]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            entry = entries.setdefault(int(row["epoch"]), {"epoch": int(row["epoch"]), "alphas": [], "neurons": []})
            entry["alphas"].append([float(value) for column, value in row.items() if column.startswith("alpha_")])
            entry["neurons"].append(row["choice"])
    return [{**entry, "neurons": joined(entry["neurons"])} for entry in entries.values()]
