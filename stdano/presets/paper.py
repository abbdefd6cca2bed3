"""The rows of the paper's tables 3, 6 and 8, with the hyperparameters of tables 4, 5 and 7."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from ..settings import SearchSettings, TrainSettings, replace
from .preset import Preset

_TITLES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet": "Tiny-ImageNet",
    "dvs-cifar10": "DVS-CIFAR10",
    "dvs-gesture": "DVS-Gesture",
    "vgg11": "VGG-11",
    "vgg13": "VGG-13",
    "vgg16": "VGG-16",
    "resnet18": "ResNet-18",
}


@functools.cache
def paper_facts() -> dict[str, Any]:
    """What paper.json holds: rows, hyperparameters, and what the paper leaves open."""
    return json.loads(files(__package__).joinpath("paper.json").read_text(encoding="utf-8"))


def paper_presets() -> Iterator[Preset]:
    """A preset for each row, and one more where the paper has a second accuracy, with NDA."""
    facts = paper_facts()
    for row in facts["rows"]:
        yield _preset(facts, row, nda=False)
        if "accuracy_nda" in row:
            yield _preset(facts, row, nda=True)


def _preset(facts: dict[str, Any], row: dict[str, Any], nda: bool) -> Preset:
    name, model, steps, table = row["dataset"], row["model"], row["T"], row["table"]
    dataset = facts["datasets"][name]
    common = {**facts["model"], **facts["optimiser"], **dataset["data"], **dataset["table5"]}
    common |= {"data": name, "model": model, "T": steps, "neurons": ""}
    searched = dataset["table4" if table == 3 else "table7"]
    assumptions = [*facts["assumptions"], *dataset["assumptions"]]
    if table == 8 and searched["batch_size"] != common["batch_size"]:
        assumptions.append(facts["assumption_table7"])
    if "accuracy_nda" in row:
        assumptions.append(facts["assumption_nda"])
    read = f" (read as {row['read']})" if "read" in row else ""
    return Preset(
        name=f"{name}-{model}-T{steps}{'-nda' * nda}",
        title=f"{_TITLES[name]}, {_TITLES[model]}, T = {steps}{', NDA' * nda}",
        train=replace(TrainSettings(), **{**common, "neurons": row["neurons"] or "", "nda": nda}),
        search=replace(SearchSettings(), **{**common, **facts["search"], **searched}),
        table=table,
        status=row["status"],
        note="; ".join(filter(None, [facts["statuses"][row["status"]] + read, row.get("note")])),
        candidates=tuple(row.get("candidates", ())),
        accuracy=round(row["accuracy_nda" if nda else "accuracy"] / 100, 4),
        gpu_days=row["gpu_days"],
        assumptions=tuple(assumptions),
    )
