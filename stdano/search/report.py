"""What a search leaves behind: alpha of every layer and epoch, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..rewrite.convert import DIGITS
from .architecture import entropy, softmax

Entry = Mapping[str, Any]


def write_alphas(path: Path, layers: Sequence[str], candidates: Sequence[str], history: Sequence[Entry]) -> None:
    """A row for each epoch and layer, all of them each time: alpha, its softmax, its entropy in nats, the choice.

    Args:
        path: the CSV file, replaced once all is written.
        layers: names, in the order of ``alphas``; numbered from 1.
        candidates: names of the neurons, in the order of each alpha.
        history: an entry for each epoch so far: ``epoch``, ``alphas`` (a list a layer), ``neurons`` (digits).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    shares = [f"{column}_{name}" for column in ("alpha", "weight") for name in candidates]
    writer.writerow(["epoch", "layer", "name", *shares, "entropy", "choice"])
    for entry in history:
        rows = zip(layers, entry["alphas"], entry["neurons"], strict=True)
        for number, (name, alpha, digit) in enumerate(rows, start=1):
            writer.writerow([entry["epoch"], number, name, *alpha, *softmax(alpha), entropy(alpha), DIGITS[digit]])
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))
