"""Whether a search helps: strings at random, places among them, and a comparison from beginning to end."""

import csv
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano.app import compare, runs
from stdano.app.compare import BY_ALPHA, BY_PERTURBATION, RANDOM, Comparison, Trial, compare_search, drawn
from stdano.models import layer_neurons, neuron_string
from stdano.search import Architecture
from stdano.settings import SearchSettings, TrainSettings, from_json, replace, to_json
from stdano.training import Diverged, Result
from stdano.training.engine import Run

TINY = replace(
    SearchSettings(), width=0.05, T=1, epochs=1, batch_size=1024, crop=1, threads=1, accelerator="cpu",
    candidates=("LIF", "ALIF(tau=4)"),
)  # fmt: skip
TRAINED = replace(from_json(to_json(TINY), TrainSettings, Path("settings")), neurons="")
NAMES = ["LIF", "ALIF(tau=4.0)"]


def test_strings_at_random():
    names = ["LIF", "LLIF", "SLIF", "ALIF"]
    strings = drawn("resnet18", names, 40, 3)
    assert strings == drawn("resnet18", names, 40, 3) and strings != drawn("resnet18", names, 40, 4)
    assert strings[:7] == drawn("resnet18", names, 7, 3)
    assert len(set(strings)) == 40 and all(neuron_string("resnet18", text) == text for text in strings)
    layers = [layer_neurons("resnet18", text) for text in strings]
    counts = Counter(name for names_of in layers for name in names_of)
    assert all(abs(counts[name] - 170) < 45 for name in names)  # four standard deviations of 680 draws
    # Each layer has each of them, and one layer does not tell the next.
    assert all(len({names_of[k] for names_of in layers}) == 4 for k in range(17))
    follows = Counter(pair for names_of in layers for pair in pairwise(names_of))
    assert len(follows) == 16 and max(follows.values()) < 70  # of 640


def test_all_strings_that_there_are():
    assert sorted(drawn("vgg-small", ["LIF", "SLIF"], 99, 0)) == sorted(
        f"{a}{b}{c}{d}" for a in "02" for b in "02" for c in "02" for d in "02"
    )
    assert drawn("vgg-small", ["ALIF"], 5, 0) == ["ALIF, ALIF, ALIF, ALIF"]


def study(**accuracies):
    """Trials of made-up accuracies: of each method a list a seed, of numbers."""
    trials = []
    for method, of_seeds in accuracies.items():
        for seed, values in enumerate(of_seeds):
            for number, value in enumerate(values):
                rows = [{"test_accuracy": 1.0, "firing_rate": 0.9}, {"test_accuracy": value, "firing_rate": value / 2}]
                trials.append(Trial(method, f"{method}{number}", seed, Result(Path("f"), rows)))
    return Comparison(Path("f"), trials)


def test_places_and_intervals():
    lines = {
        line.method: line
        for line in study(
            found=[[0.8], [0.6], [0.5]],
            LIF=[[0.1], [0.9], [0.5]],
            random=[[0.7, 0.9, 0.2, 0.8], [0.5, 0.6, 0.6, 0.1], [0.4, 0.4, 0.4, 0.4]],
        ).lines
    }
    assert list(lines) == ["found", "LIF", "random"]
    found, lif, random = lines.values()
    # Means of the random ones: 0.65, 0.45, 0.4. Places: 1 + 1.5, 1 + 1, 1.
    assert found.rank == pytest.approx((2.5 + 2 + 1) / 3) and lif.rank == pytest.approx((5 + 1 + 1) / 3)
    assert found.accuracy.mean == pytest.approx(1.9 / 3) and found.accuracy.count == 3
    assert found.over_random.mean == pytest.approx((0.15 + 0.15 + 0.1) / 3)
    deviation = math.sqrt(sum((v - 0.4 / 3) ** 2 for v in (0.15, 0.15, 0.1)) / 2)
    assert found.over_random.half == pytest.approx(4.303 * deviation / math.sqrt(3), rel=1e-6)
    assert lif.over_random.mean == pytest.approx((-0.55 + 0.45 + 0.1) / 3)
    assert random.rank is None and random.over_random is None
    assert random.accuracy.count == 3 and random.accuracy.mean == pytest.approx(1.5 / 3)  # a number a seed
    assert found.firing_rate == pytest.approx(0.95 / 3) and found.neurons == ["found0"]
    assert random.neurons == ["random0", "random1", "random2", "random3"]


def test_lines_while_random_ones_are_missing():
    alone = study(found=[[0.5], [0.75]]).lines[0]
    assert (alone.rank, alone.over_random) == (None, None) and alone.accuracy.mean == 0.625
    half = study(found=[[0.5], [0.75]], random=[[0.25]]).lines[0]
    assert half.rank == 1 and half.over_random.mean == 0.25 and half.over_random.count == 1


@pytest.fixture(scope="module", autouse=True)
def without_pictures():
    """Those of the runs; that of the comparison is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "draw", lambda run: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared") / "study"
    return folder, compare_search(TINY, TRAINED, folder, seeds=[1], random=1)


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_comparison(whole):
    folder, study = whole
    found = Architecture.load(folder / "search-seed1" / "architecture.json")
    assert found.selection == "perturbation" and found.settings["optimiser"]["seed"] == 1
    methods = [BY_ALPHA, BY_PERTURBATION, *NAMES, RANDOM]
    strings = [found.by_alpha, found.neurons, "0000", ", ".join(NAMES[1:] * 4), drawn("vgg-small", NAMES, 1, 1)[0]]
    assert [(t.method, t.neurons, t.seed) for t in study.trials] == [
        (method, text, 1) for method, text in zip(methods, strings, strict=True)
    ]
    for trial in study.trials:
        settings = from_json((trial.result.folder / "settings.json").read_text(), TrainSettings, folder)
        assert replace(settings, threads=1) == replace(TRAINED, neurons=trial.neurons, seed=1)
        assert trial.accuracy == trial.result.rows[-1]["test_accuracy"]
    assert {path.name for path in folder.iterdir()} == {
        "runs.csv", "summary.csv", "comparison.png", "search-seed1", *(runs.run_name(text, 1) for text in strings)
    }  # fmt: skip
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_its_tables(whole):
    folder, study = whole
    rows = table(folder / "runs.csv")
    assert [(row["method"], row["neurons"]) for row in rows] == [(t.method, t.neurons) for t in study.trials]
    assert [float(row["last_accuracy"]) for row in rows] == [t.accuracy for t in study.trials]
    summary = table(folder / "summary.csv")
    for row, line in zip(summary, study.lines, strict=True):
        assert row["method"] == line.method and float(row["last_accuracy"]) == line.accuracy.mean
        assert row["rank"] == ("" if line.rank is None else str(line.rank))
    assert summary[-1]["method"] == RANDOM and summary[-1]["over_random"] == ""


def test_a_second_call_keeps_what_is_finished(whole, monkeypatch, capsys):
    folder, study = whole
    for name in ("train", "resume", "search", "resume_search"):
        monkeypatch.setattr(runs, name, lambda *_: pytest.fail("this was finished"))
    again = compare_search(TINY, TRAINED, folder, seeds=[1], random=1)
    assert [(t.method, t.neurons, t.accuracy) for t in again.trials] == (
        [(t.method, t.neurons, t.accuracy) for t in study.trials]
    )
    assert "comparison.png" in "".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match="out must be a new folder, or one with the same settings; .* has lr 0.1"):
        compare_search(replace(TINY, lr=0.2), TRAINED, folder, seeds=[1], random=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "seeds must be one or more different ones, got $"),
        ({"seeds": [1, 1]}, "seeds must be one or more different ones, got 1, 1"),
        ({"random": 0}, "random must be 1 or more, got 0"),
        ({"searching": replace(TINY, candidates=("LIF", "lif"))}, "got 'lif'"),
        ({"training": replace(TRAINED, epochs=0)}, "epochs must be 1 or more, got 0"),
        ({"training": replace(TRAINED, devices=2)}, "compare-search must run in one process, got 2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_leave_no_folder(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        compare_search(**{"searching": TINY, "training": TRAINED, "folder": tmp_path / "f", **arguments})
    assert not (tmp_path / "f").exists()


def test_names_of_folders():
    assert runs.run_name("0120", 3) == "0120-seed3" and runs.run_name("LLIF-4", 0) == "LLIF-4-seed0"
    names = [runs.run_name(f"LIF(tau={tau}), " * 12 + end, 0) for tau in (4.0, 5.0) for end in ("LIF", "ALIF")]
    assert len(set(names)) == 4 and all(len(name) < 64 and "(" not in name for name in names)
    assert runs.run_name("a/../../b", 0).count("/") == 0


def test_the_command(monkeypatch, tmp_path):
    from stdano.app import cli

    called = []
    monkeypatch.setattr(compare, "compare_search", lambda *a, **k: called.append((*a, k)))
    options = f"--preset digits --out {tmp_path} --seeds 3 4 --random 2 --search-epochs 7 --epochs 5 --tune-lr 0.02"
    assert cli.main(["compare-search", *options.split(), "--candidates", *NAMES]) == 0
    ((searching, training, folder, given),) = called
    assert (folder, given) == (tmp_path, {"seeds": (3, 4), "random": 2})
    assert (searching.optimiser.epochs, training.optimiser.epochs) == (7, 5)
    assert (searching.search.candidates, searching.search.tune_lr) == (tuple(NAMES), 0.02)
    assert searching.model.model == training.model.model == "vgg-small" and training.model.neurons == ""


def test_a_diverged_run_says_so(monkeypatch, tmp_path):
    with pytest.raises(Diverged):
        compare_search(
            replace(TINY, lr=1e30, dropout=0.0, batch_size=128), TRAINED, tmp_path / "f", seeds=[0], random=1
        )


def test_a_training_that_diverges_is_left_out(monkeypatch, tmp_path):
    real = compare.complete

    def complete(settings, folder):
        if settings.model.neurons == "0000":
            raise Diverged("the training loss", float("nan"), 1, 1, {}, folder)
        return real(settings, folder)

    monkeypatch.setattr(compare, "complete", complete)
    monkeypatch.setattr(Run, "draw", lambda run: None)
    with pytest.raises(Diverged):
        compare_search(TINY, TRAINED, tmp_path, seeds=[0], random=1)
    rows = (tmp_path / "runs.csv").read_text().splitlines()
    assert len(rows) > 3 and not any(row.startswith("LIF,") for row in rows)
