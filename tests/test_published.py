"""The paper's numbers: as its tables have them, with what is illegible marked, and errors that say what there is."""

import json
import math
from importlib.resources import files
from pathlib import Path

import pytest

from stdano.analysis import published
from stdano.models import ablations, num_spiking_layers
from stdano.nodes.candidates import DIGITS

TABLES = Path(__file__).parents[2] / "shared" / "paper" / "paper_tables.json"
NETWORKS = {"resnet18": "ResNet-18", "vgg11": "VGG-11", "vgg13": "VGG-13", "vgg16": "VGG-16"}


@pytest.fixture(scope="module")
def tables():
    if not TABLES.exists():
        pytest.skip("needs the paper's tables, ../shared/paper/paper_tables.json")
    return json.loads(TABLES.read_text())


def test_every_row_of_tables_2_and_6(tables):
    """Of a transcription of the paper; of other works and of its own."""

    def rows(number):
        return sorted((row.dataset, row.method, row.T, row.accuracy) for row in published.table(number))

    def transcribed(entries, dataset):
        return [(dataset, e["model"].removesuffix(" (Ours)"), e["T"], round(e["acc"] / 100, 4)) for e in entries]

    second = [row for dataset, entries in tables["table2"].items() for row in transcribed(entries, dataset)]
    sixth = [row for case, entries in tables["table6"].items() for row in transcribed(entries, case.split("/")[0])]
    assert rows(2) == sorted(second) and rows(6) == sorted(sixth)
    printed = {(d, e["model"], e["T"]): e for d, entries in tables["table2"].items() for e in entries}
    for row in published.table(2):
        if not row.neurons:
            entry = printed[row.dataset, row.method, row.T]
            assert (row.network, row.training) == (entry["arch"], entry["method"])
    for case, entries in tables["table6"].items():
        dataset, model = case.split("/")
        others = {e["model"] for e in entries if "Ours" not in e["model"]}
        found = {row.method for row in published.comparisons(dataset) if 6 in row.tables} & others
        assert found == others
        networks = {row.network.split(" ")[0] for row in published.table(6) if row.method in others} & {NETWORKS[model]}
        assert networks == {NETWORKS[model]}


def test_every_row_of_table_1(tables):
    for row in tables["table1"]["rows"]:
        for dataset, model, key in (("cifar10", "resnet18", "cifar10_resnet18"), ("dvs-cifar10", "vgg11", None)):
            accuracy = row[key or "dvs_cifar10_vgg11"]
            found = published.accuracies(dataset, model)
            assert found.get(row["method"]) == (None if accuracy is None else round(accuracy / 100, 4))
            if accuracy is not None:
                assert ablations(model)[row["method"]] == row[f"config_{model}"]
    assert all(row.neurons == ablations(row.network)[row.method] and row.T is None for row in published.table(1))


def test_every_cell_of_the_figures(tables):
    assert [f"{d}/{m}/T{T}" for d, m, T in published.searches()] == list(tables["heatmaps"])
    for name, panel in tables["heatmaps"].items():
        dataset, model, T = panel["dataset"], panel["arch"], panel["T"]
        found = published.alphas(dataset, model, T)
        assert [[None if math.isnan(a) else a for a in layer] for layer in found.alphas] == panel["alpha"]
        marked = [[n, c] for n, layer in enumerate(found.uncertain, 1) for c, u in zip("012", layer, strict=True) if u]
        assert sorted([n, DIGITS[c]] for n, c in marked) == sorted(panel["uncertain"]), name
        if panel["uncertain"] or panel["missing"]:
            assert found.note


def test_the_largest_alpha_is_table_3s():
    """All of the 17; where a cell is illegible the others are compared."""
    assert len(published.searches()) == len(published.table(3)) == 17
    compared = 0
    for dataset, model, T in published.searches():
        found = published.alphas(dataset, model, T)
        assert len(found.alphas) == len(found.neurons) == num_spiking_layers(model)
        assert found.candidates == list(DIGITS.values()) and found.source == "the paper's"
        for layer, digit in zip(found.alphas, found.neurons, strict=True):
            known = {name: a for name, a in zip(found.candidates, layer, strict=True) if not math.isnan(a)}
            assert max(known, key=known.get) == DIGITS[digit] or set(known) == {"LLIF", "SLIF"}
            compared += len(known) == 3
    assert compared == 8 * 17 + 4 * 10 + 5 * 8 - 3  # layers, less those with an illegible cell


def test_rows_by_hand():
    assert published.accuracies("dvs-cifar10", "vgg11", 10) == {"ST-DANO": 0.793, "ST-DANO + NDA": 0.839}
    assert published.accuracies("cifar10", "resnet18")["SLIF"] == 0.8383
    sltt = next(row for row in published.comparisons("cifar10") if row.method.startswith("SLTT"))
    assert (sltt.tables, sltt.network, sltt.T, sltt.accuracy, sltt.training) == ((2, 6), "ResNet-18", 6, 0.9459, "SG")
    row = published.table("8")[1]
    assert (row.dataset, row.network, row.T, row.neurons, row.gpu_days) == ("cifar10", "vgg16", 4, "", 0.11)
    assert row.candidates[0] == "2000000000110" and "short" in row.note
    works = {row.method.split(" (")[0] for d in ("cifar10", "cifar100") for row in published.comparisons(d)}
    assert works >= {"Offline LTL", "Joint A-SNN", "TET-SSF", "OTTT", "SLTT", "LT-SNN", "DTA-TTFS", "ESL-SNNs"}
    assert works >= {"SNASNet-Bw", "AutoSNN", "sparse-KD"}
    assert {row.source for number in published.TABLES for row in published.table(number)} == {"the paper's"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: published.table(4), "number must be one of 1, 2, 3, 6, 8, got 4"),
        (lambda: published.comparisons("cifar"), "dataset must be one of cifar10, cifar100, .*; got 'cifar'"),
        (lambda: published.accuracies("cifar10", "vgg13"), "must be one of cifar10 resnet18, .*; got 'cifar10 vgg13'"),
        (lambda: published.alphas("cifar10", "vgg16", 4), "one of cifar10 resnet18 T=2, .*; got 'cifar10 vgg16 T=4'"),
    ],
)
def test_what_there_is_not(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_file_is_marked_and_plain():
    text = files("stdano.analysis").joinpath("published.json").read_text(encoding="utf-8")
    assert json.loads(text)["source"] == published.SOURCE and "NaN" not in text
