"""The paper's own numbers, to stand beside measured ones: tables 1, 2, 3, 6 and 8, and the alphas of figures 6 to 9.

They were read from a copy of the paper whose print is illegible in places; notes say where. The hyperparameters of
tables 4, 5 and 7 are in :func:`stdano.presets.presets`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ..models import ablations
from ..presets.paper import paper_facts

SOURCE = "the paper's"
TABLES = (1, 2, 3, 6, 8)


@dataclass(frozen=True)
class Row:
    """A row of a table; one with several time steps is as many rows.

    Attributes:
        tables: numbers of the tables that have it.
        dataset: ``"cifar10"``, ``"cifar100"``, ``"tiny-imagenet"``, ``"dvs-cifar10"`` or ``"dvs-gesture"``.
        method: ``"ST-DANO"``, also with ``" + NDA"`` (augmentation of events); of table 1 as in
            :func:`stdano.models.ablations`; another work's name and citation.
        network: as :func:`stdano.models.create_model` has it; another work's as it is printed.
        T: time steps; None where the table does not say.
        accuracy: on test samples, from 0 to 1.
        neurons: digits (0 LIF, 1 LLIF, 2 SLIF); empty for other works, and where they are illegible.
        candidates: where they are illegible, the strings that they can be, the likeliest first.
        gpu_days: cost of the search in days of one RTX 3090; None where there was none.
        training: of another work: ``"SG"``, by surrogate gradients, or ``"A2S"``, converted from a network without
            spikes; empty where the table does not say.
        note: what is uncertain.
        source: ``"the paper's"``, of other works' numbers too: as it gives them.
    """

    tables: tuple[int, ...]
    dataset: str
    method: str
    network: str
    T: int | None
    accuracy: float
    neurons: str = ""
    candidates: tuple[str, ...] = ()
    gpu_days: float | None = None
    training: str = ""
    note: str = ""
    source: str = SOURCE


@dataclass(frozen=True)
class Alphas:
    """The architecture parameters of one search, a panel of figures 6 to 9. Layers are in order of execution.

    Attributes:
        dataset, model, T: what was searched.
        candidates: names of the neurons in the order of each alpha.
        alphas: a list a layer; NaN where it is illegible.
        uncertain: which of them are half legible, likewise.
        neurons: the digits of table 3.
        figure: number of the figure.
        note: what is uncertain.
        source: ``"the paper's"``.
    """

    dataset: str
    model: str
    T: int
    candidates: list[str]
    alphas: list[list[float]]
    uncertain: list[list[bool]]
    neurons: str
    figure: int
    note: str = ""
    source: str = SOURCE


def table(number: int | str) -> list[Row]:
    """The rows of one of the tables 1, 2, 3, 6 and 8. Those of 3 and 8 bring the accuracies of 2 and 6 along.

    Raises:
        ValueError: the number is another.
    """
    if str(number) not in map(str, TABLES):
        raise ValueError(f"number must be one of {', '.join(map(str, TABLES))}, got {number!r}")
    return [row for row in _rows() if int(number) in row.tables]


def comparisons(dataset: str) -> list[Row]:
    """The other works' rows of tables 2 and 6.

    Raises:
        ValueError: there is no such data set.
    """
    others = [row for row in _rows() if not row.neurons and not row.candidates]
    _known("dataset", dataset, sorted({row.dataset for row in others}))
    return [row for row in others if row.dataset == dataset]


def accuracies(dataset: str, model: str, T: int | None = None) -> dict[str, float]:
    """Accuracies of a network by method, from 0 to 1: with T those of ST-DANO (tables 2 and 6), without it those of
    table 1, which does not give T.

    Raises:
        ValueError: there are none; the message lists what there is.
    """
    own = [row for row in _rows() if row.neurons or row.candidates]
    names = [_name(row.dataset, row.network, row.T) for row in own]
    wanted = _name(dataset, model, T)
    _known("dataset, model and T", wanted, list(dict.fromkeys(names)))
    return {row.method: row.accuracy for row, name in zip(own, names, strict=True) if name == wanted}


def alphas(dataset: str, model: str, T: int) -> Alphas:
    """The architecture parameters after a search, from figures 6 to 9.

    Raises:
        ValueError: there are none; the message lists what there is.
    """
    panels = {_name(panel["dataset"], panel["model"], panel["T"]): panel for panel in _facts()["alphas"]}
    wanted = _name(dataset, model, T)
    _known("dataset, model and T", wanted, list(panels))
    panel, candidates = panels[wanted], ["LIF", "LLIF", "SLIF"]
    values = [[math.nan if value is None else value for value in layer] for layer in panel["alphas"]]
    marked = panel.get("uncertain", ())
    uncertain = [[[number, name] in marked for name in candidates] for number in range(1, len(values) + 1)]
    neurons = next(row.neurons for row in table(3) if (row.dataset, row.network, row.T) == (dataset, model, T))
    note = panel.get("note", "")
    return Alphas(dataset, model, T, candidates, values, uncertain, neurons, panel["figure"], note)


def searches() -> list[tuple[str, str, int]]:
    """Data set, model and T of each search that has :func:`alphas`."""
    return [(panel["dataset"], panel["model"], panel["T"]) for panel in _facts()["alphas"]]


def _known(argument: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument} must be one of {', '.join(allowed)}; got {value!r}")


def _name(dataset: str, model: str, T: int | None) -> str:
    return f"{dataset} {model}" + ("" if T is None else f" T={T}")


@functools.cache
def _facts() -> dict[str, Any]:
    return json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8"))


@functools.cache
def _rows() -> tuple[Row, ...]:
    return *_ablations(), *_others(), *_own()


def _ablations() -> Iterator[Row]:
    facts = _facts()
    for part in facts["table1"]:
        dataset, model = part["dataset"], part["model"]
        for method, accuracy in part["accuracies"].items():
            neurons = ablations(model)[method]
            yield Row((1,), dataset, method, model, None, _share(accuracy), neurons, note=facts["table1_note"])


def _others() -> Iterator[Row]:
    for row in _facts()["comparisons"]:
        method, training = f"{row['work']} ({row['cited']})", row.get("training", "")
        accuracy = _share(row["accuracy"])
        yield Row(tuple(row["tables"]), row["dataset"], method, row["network"], row["T"], accuracy, training=training)


def _own() -> Iterator[Row]:
    facts = paper_facts()
    for row in facts["rows"]:
        notes = "" if row["status"] == "confirmed" else facts["statuses"][row["status"]]
        for method, key in (("ST-DANO", "accuracy"), ("ST-DANO + NDA", "accuracy_nda")):
            if key not in row:
                continue
            number, nda = row["table"], key == "accuracy_nda"
            yield Row(
                # Table 2 has the searches of table 3, table 6 all; the searches are printed once.
                tables=tuple(sorted(({2} if number == 3 else set()) | {6} | (set() if nda else {number}))),
                dataset=row["dataset"],
                method=method,
                network=row["model"],
                T=row["T"],
                accuracy=_share(row[key]),
                neurons=row["neurons"] or "",
                candidates=tuple(row.get("candidates", ())),
                gpu_days=row["gpu_days"],
                note="; ".join(filter(None, [notes, row.get("note")])),
            )


def _share(per_cent: float) -> float:
    return round(per_cent / 100, 4)
