"""The demo and the ablation study: several runs in a folder, on a network of a few channels; what they leave behind."""

import csv
import json
import math
import statistics

import pytest

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano.app import ablate as ablation
from stdano.app import demo as demonstration
from stdano.app import runs
from stdano.app.ablate import ablate
from stdano.app.demo import demo
from stdano.app.runs import complete, complete_search, read_metrics
from stdano.nodes.neurons import CANDIDATES
from stdano.presets import Preset
from stdano.search import Architecture
from stdano.settings import SearchSettings, TrainSettings, replace
from stdano.training import Diverged, Interrupted, train

SMALL = dict(width=0.1, T=2, epochs=2, batch_size=512, threads=1, accelerator="cpu")
TINY = replace(TrainSettings(), **SMALL)
PRESET = Preset("tiny", "", TINY, replace(SearchSettings(), **SMALL, neurons=""))


@pytest.fixture
def tiny_preset(monkeypatch):
    monkeypatch.setattr(demonstration, "get_preset", {"tiny": PRESET}.__getitem__)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A demo from beginning to end: its result and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demonstration, "get_preset", {"tiny": PRESET}.__getitem__)
        return demo(tmp_path_factory.mktemp("whole") / "demo", preset="tiny", epochs=0, seed=5)


def is_picture(path):
    from PIL import Image

    with Image.open(path) as image:
        return image.format == "PNG" and image.width >= 500 and len(image.getcolors(1 << 20)) > 50


def no_times(rows):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second", "waiting")} for row in rows]


def test_what_a_demo_leaves_behind(whole):
    pictures = {"comparison.png", "rates.png"}
    assert {path.name for path in whole.folder.iterdir()} == {"search", "found", "lif", *pictures}
    assert is_picture(whole.folder / "comparison.png") and is_picture(whole.folder / "search" / "alphas.png")
    settings = {
        name: json.loads((whole.folder / name / "settings.json").read_text()) for name in ("search", "found", "lif")
    }
    assert settings["found"]["model"]["neurons"] == whole.architecture.neurons != "0000"
    assert settings["lif"]["model"]["neurons"] == "0000"
    assert {part["optimiser"]["seed"] for part in settings.values()} == {5}


def test_a_finished_demo_is_only_read(whole, tiny_preset, capsys, monkeypatch):
    for name in ("train", "resume", "search", "resume_search"):
        monkeypatch.setattr(runs, name, None)
    again = demo(whole.folder, preset="tiny", epochs=0, seed=5)
    assert again.architecture == whole.architecture
    assert (again.found.rows, again.lif.rows) == (whole.found.rows, whole.lif.rows)
    out = capsys.readouterr().out
    assert whole.architecture.neurons in out and f"{whole.lif.last['test_accuracy']:.2%}" in out
    for name in ("alphas.png", "comparison.png", "rates.png"):
        assert name in out.replace("\n", "")


def test_an_interrupted_demo_goes_on(whole, tiny_preset, tmp_path, monkeypatch):
    """After the search, in the first training."""

    def interrupted(settings, folder):
        raise Interrupted(folder, "train")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", interrupted)
        with pytest.raises(Interrupted):
            demo(tmp_path / "demo", preset="tiny", epochs=0, seed=5)
    monkeypatch.setattr(runs, "search", None)
    monkeypatch.setattr(demonstration, "evaluate", lambda folder, checkpoint: whole_evaluation())
    result = demo(tmp_path / "demo", preset="tiny", epochs=0, seed=5)
    assert result.architecture.alphas == whole.architecture.alphas
    assert no_times(result.found.rows) == no_times(whole.found.rows)


def whole_evaluation():
    from stdano.training import Evaluation

    return Evaluation(0.3, 0.9, 0.2, {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.2}, 360)


def test_the_search_may_choose_lif_everywhere(whole, tiny_preset, tmp_path, monkeypatch, capsys):
    chosen = Architecture(
        **{
            **vars(whole.architecture),
            "neurons": "0000",
            "alphas": [[1.0] + [0.0] * (len(CANDIDATES) - 1)] * 4,
            "candidates": list(CANDIDATES),
        }
    )
    (tmp_path / "demo").mkdir()
    monkeypatch.setattr(demonstration, "complete_search", lambda settings, folder: chosen)
    monkeypatch.setattr(demonstration, "complete", lambda settings, folder: whole.lif)
    monkeypatch.setattr(demonstration, "evaluate", lambda folder, checkpoint: whole_evaluation())
    result = demo(tmp_path / "demo", preset="tiny", epochs=0)
    assert result.lif is result.found
    out = " ".join(capsys.readouterr().out.split())
    assert "3/3: left out" in out and "there is no other network to compare" in out
    assert is_picture(tmp_path / "demo" / "comparison.png")


def test_a_folder_with_something_else(whole, tiny_preset):
    with pytest.raises(
        ValueError, match=r"out must be a new folder, or one with the same settings; \S+search has seed 5$"
    ):
        demo(whole.folder, preset="tiny", epochs=0, seed=6)
    with pytest.raises(ValueError, match="the folder must hold a search, .*found holds a training run"):
        complete_search(PRESET.search, whole.folder / "found")


@pytest.mark.parametrize("function", [demo, ablate])
def test_one_process(function, tiny_preset, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = {"preset": "tiny"} if function is demo else {"settings": TINY}
    with pytest.raises(ValueError, match=f"{function.__name__} must run in one process, got 2"):
        function(folder=tmp_path / "f", **arguments)
    assert not (tmp_path / "f").exists()


def test_a_stopped_run_is_gone_on_with(tmp_path):
    """And its number of threads may have been PyTorch's choice."""

    def stop(progress):
        if (progress.epoch, progress.step) == (1, 1):
            raise SystemExit

    settings = replace(TINY, threads=0)
    with pytest.raises(SystemExit):
        train(settings, tmp_path / "a", after_step=stop)
    assert len(read_metrics(tmp_path / "a")) == 1
    result = complete(settings, tmp_path / "a")
    assert [row["epoch"] for row in result.rows] == [1, 2]
    assert complete(settings, tmp_path / "a").rows == result.rows == read_metrics(tmp_path / "a")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "ablation"
    return ablate(replace(TINY, epochs=1), folder, ["LLIF-2", "2001"], [3, 1])


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_ablation(study):
    assert [(t.method, t.neurons, t.seed) for t in study.trials] == [
        ("LLIF-2", "0110", 3),
        ("LLIF-2", "0110", 1),
        ("2001", "2001", 3),
        ("2001", "2001", 1),
    ]
    for trial in study.trials:
        folder = study.folder / f"{trial.method}-seed{trial.seed}"
        settings = json.loads((folder / "settings.json").read_text())
        assert settings["optimiser"]["seed"] == trial.seed and trial.result.folder == folder
        assert settings["model"]["neurons"] == trial.method
        assert trial.result.rows == read_metrics(folder)
    first, second = study.summaries
    accuracies = [trial.result.last["test_accuracy"] for trial in study.trials[:2]]
    assert (first.method, first.neurons, first.runs) == ("LLIF-2", "0110", 2)
    assert first.last_accuracy == pytest.approx(sum(accuracies) / 2)
    assert first.last_accuracy_std == pytest.approx(abs(accuracies[0] - accuracies[1]) / math.sqrt(2))
    rates = [trial.result.last["firing_rate"] for trial in study.trials[2:]]
    assert (second.firing_rate, second.firing_rate_std) == (statistics.mean(rates), statistics.stdev(rates))


def test_what_an_ablation_leaves_behind(study):
    assert is_picture(study.folder / "accuracy.png")
    rows = table(study.folder / "runs.csv")
    assert [(row["method"], row["seed"]) for row in rows] == [(t.method, str(t.seed)) for t in study.trials]
    assert [float(row["best_accuracy"]) for row in rows] == [t.result.best["test_accuracy"] for t in study.trials]
    rows = table(study.folder / "summary.csv")
    assert [float(row["last_accuracy"]) for row in rows] == [s.last_accuracy for s in study.summaries]


def test_an_ablation_goes_on(study, monkeypatch, capsys):
    """What is finished is read; a method or a seed can be added, or left out."""
    monkeypatch.setattr(runs, "resume", None)
    before = table(study.folder / "runs.csv")
    result = ablate(replace(TINY, epochs=1), study.folder, ["2001", "LIF"], [3])
    assert [trial.method for trial in result.trials] == ["2001", "LIF"]
    assert result.trials[0].result.rows == study.trials[2].result.rows
    assert table(study.folder / "runs.csv")[0] == before[2]
    out = capsys.readouterr().out
    assert "run 1/2: 2001 (2001), seed 3" in out and "±" not in out
    assert math.isnan(result.summaries[0].last_accuracy_std)


def test_a_run_that_diverges_is_left_out(tmp_path, monkeypatch, capsys, study):
    def diverge(settings, folder):
        if settings.model.neurons == "SLIF":
            raise Diverged("the training loss", math.nan, 1, 2, {"a": 0.5}, folder)
        return study.trials[0].result

    monkeypatch.setattr(ablation, "complete", diverge)
    tmp_path = tmp_path / "f"
    tmp_path.mkdir()
    with pytest.raises(Diverged, match="the training loss is nan in epoch 1, step 2"):
        ablate(TINY, tmp_path, ["SLIF", "LIF"], [0, 1])
    assert [(row["method"], row["runs"]) for row in table(tmp_path / "summary.csv")] == [("LIF", "2")]
    assert "left out: the training loss is nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": []}, "methods must be one or more different ones, got $"),
        ({"methods": ["LIF", "LIF"]}, "methods must be one or more different ones, got LIF, LIF"),
        ({"seeds": [1, 1]}, "seeds must be one or more different ones, got 1, 1"),
        ({"seeds": [-1]}, "seed must be 0 or more, got -1"),
        ({"methods": ["LIF", "ELIF"]}, "neurons must be 4 digits for vgg-small .*; got 'ELIF'"),
        ({"methods": ["00001"]}, "neurons must be 4 digits for vgg-small .*; got 5 digits, '00001'"),
        ({"settings": replace(TINY, epochs=0)}, "epochs must be 1 or more, got 0"),
    ],
    ids=lambda value: str(next(iter(value.values())))[:20] if isinstance(value, dict) else "",
)
def test_wrong_arguments_leave_no_folder(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ablate(**{"settings": TINY, "folder": tmp_path / "f", **arguments})
    assert not (tmp_path / "f").exists()
