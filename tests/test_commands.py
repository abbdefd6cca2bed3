"""What each command calls: settings from options, presets, files and searches."""

import re
import webbrowser
from pathlib import Path

import pytest
from cli_common import architecture, needs_the_extra, note_calls, raising

import stdano
from stdano.app import cli
from stdano.presets import get_preset
from stdano.settings import SearchSettings, TrainSettings, replace, to_json


@pytest.fixture
def calls(monkeypatch, tmp_path):
    needs_the_extra()
    return note_calls(monkeypatch, tmp_path)


class TestTrain:
    def test_options_reach_the_run(self, calls):
        arguments = [
            "--neurons",
            "SLIF",
            "--batch-size",
            "512",
            "--T",
            "2",
            "--flip",
            "--no-fuse",
            "--data",
            "folder:x",
        ]
        assert cli.main(["train", *arguments]) == 0
        ((name, settings, folder),) = calls
        expected = replace(TrainSettings(), neurons="SLIF", batch_size=512, T=2, flip=True, fuse=False, data="folder:x")
        assert (name, settings) == ("training.train", expected)
        assert re.fullmatch(r"runs/train-\d{8}-\d{6}", str(folder))

    def test_over_a_preset(self, calls):
        assert cli.main(["train", "--preset", "cifar10-resnet18-T4", "--lr", "0.2"]) == 0
        ((_, settings, folder),) = calls
        assert settings == replace(get_preset("cifar10-resnet18-T4").train, lr=0.2)
        assert folder.name.startswith("train-cifar10-resnet18-T4-")

    def test_a_string_that_is_not_certain_can_be_given(self, calls):
        assert cli.main(["train", "--preset=cifar10-vgg16-T4", "--neurons=2000000000110"]) == 0
        assert calls[0][1] == replace(get_preset("cifar10-vgg16-T4").train, neurons="2000000000110")

    def test_over_a_file(self, calls, tmp_path):
        (tmp_path / "settings.json").write_text(to_json(replace(TrainSettings(), lr=0.3, T=7, neurons="SLIF")))
        assert cli.main(["train", "--config", "settings.json", "--T", "3", "--out", "here"]) == 0
        ((_, settings, folder),) = calls
        assert settings == replace(TrainSettings(), lr=0.3, T=3, neurons="SLIF") and folder == Path("here")

    @pytest.mark.parametrize("given", ["search", "search/architecture.json"])
    def test_what_a_search_has_found(self, given, calls, tmp_path):
        """With the settings of the search, or with others that are named, or beside options."""
        (tmp_path / "search").mkdir()
        architecture().save(tmp_path / "search" / "architecture.json")
        assert cli.main(["train", "--architecture", given, "--epochs", "9"]) == 0
        assert cli.main(["train", "--architecture", given, "--preset", "digits"]) == 0
        assert cli.main(["train", "--architecture", given, "--neurons", "0000"]) == 0
        settings = [call[1] for call in calls]
        base = replace(TrainSettings(), T=6, lr=0.3)
        assert settings[0] == replace(base, neurons="1201", epochs=9)
        assert settings[1] == replace(get_preset("digits").train, neurons="1201")
        assert settings[2] == replace(base, neurons="0000", epochs=3)

    def test_resume(self, calls):
        assert cli.main(["train", "--resume", "a"]) == 0 == cli.main(["train", "--resume=b"])
        assert calls == [("training.resume", Path("a")), ("training.resume", Path("b"))]


class TestSearch:
    def test_over_a_preset(self, calls, capsys):
        assert cli.main(["search", "--preset", "digits", "--alpha-lr", "0.1", "--candidates", "LIF", "SLIF"]) == 0
        ((name, settings, folder),) = calls
        assert name == "search.search" and folder.name.startswith("search-digits-")
        assert settings == replace(get_preset("digits").search, alpha_lr=0.1, candidates=("LIF", "SLIF"))
        out = capsys.readouterr().out
        assert "neurons: 1201, 0.0125 device hours" in out
        assert f"stdano train --architecture {folder}\n" in out
        assert out.endswith(f"stdano train --preset digits --architecture {folder}\nreport: report.html\n")

    def test_resume(self, calls, capsys):
        assert cli.main(["search", "--resume", "a"]) == 0
        assert calls == [("search.resume", Path("a"))]
        assert capsys.readouterr().out.endswith("stdano train --architecture a\nreport: report.html\n")

    def test_its_neurons_are_open(self, calls, tmp_path):
        """Also where it begins with the settings of a training run."""
        (tmp_path / "settings.json").write_text(to_json(replace(TrainSettings(), neurons="SLIF")))
        assert cli.main(["search", "--config", "settings.json"]) == 0
        assert calls[0][1] == replace(SearchSettings(), neurons="")


def test_demo(calls, capsys):
    assert cli.main(["demo", "--no-html"]) == 0
    assert "report" not in capsys.readouterr().out
    calls.clear()
    assert cli.main(["demo"]) == 0 == cli.main(["demo", "--seed", "3", "--epochs", "2", "--out", "here"])
    assert re.fullmatch(r"runs/demo-\d{8}-\d{6}", str(calls[0][1]))
    assert calls[0][2] == {"preset": "digits-events", "seed": 0, "epochs": 8}
    assert calls[1] == ("demo.demo", Path("here"), {"preset": "digits-events", "seed": 3, "epochs": 2})
    assert capsys.readouterr().out == "report: report.html\n" * 2


class TestReport:
    def test_its_arguments(self, calls, monkeypatch, capsys):
        noted = []
        monkeypatch.setattr(stdano.report, "report", lambda *a, **k: noted.append((*a, k)) or Path("there/report.html"))
        monkeypatch.setattr(webbrowser, "open", lambda address: noted.append(address) or True)
        assert cli.main(["report", "a", "b", "--out", "there", "--samples", "7", "--open"]) == 0
        folders, out, more = noted[0]
        assert (folders, out, more["samples"]) == ((Path("a"), Path("b")), Path("there"), 7)
        assert noted[1] == Path("there/report.html").resolve().as_uri()
        assert capsys.readouterr().out == "report: there/report.html\n"

    def test_what_it_refuses(self, calls, monkeypatch, capsys):
        monkeypatch.undo()
        assert cli.main(["report"]) == 2
        assert cli.main(["report", "nowhere"]) == 2
        assert "runs must be folders of runs that have finished an epoch, or hold such runs, got nowhere" in (
            capsys.readouterr().err
        )

    def test_a_search_is_safe_when_its_report_fails(self, calls, monkeypatch, capsys):
        monkeypatch.setattr(stdano.report, "report", raising(OSError("disk full")))
        assert cli.main(["search", "--preset", "digits"]) == 0
        assert "no report: disk full" in capsys.readouterr().out


def test_ablate(calls):
    arguments = ["--preset", "digits", "--methods", "LIF", "LLIF-4", "0120", "--seeds", "3", "1", "--epochs", "2"]
    assert cli.main(["ablate", *arguments]) == 0
    ((name, settings, folder, methods, seeds),) = calls
    assert name == "ablate.ablate" and folder.name.startswith("ablate-digits-")
    assert settings == replace(get_preset("digits").train, epochs=2)
    assert (methods, seeds) == (("LIF", "LLIF-4", "0120"), (3, 1))


def test_evaluate(calls, capsys, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text(to_json(replace(TrainSettings(), neurons="LLIF-1", T=3)))
    assert cli.main(["evaluate", "run"]) == 0
    words = capsys.readouterr().out.replace("│", " ").split()
    assert "97.50%" in words and "0.2500" in words and "360" in words and "0.1250" in words
    assert words[words.index("a") :][:3] == ["a", "LLIF", "0.1000"]
    assert words[words.index("d") :][:3] == ["d", "LIF", "0.4000"]
    assert cli.main(["evaluate", "run", "--checkpoint", "last", "--data", "folder:x", "--cache", "c"]) == 0
    here = ["--accelerator", "cpu", "--devices", "1", "--backend", "auto"]
    assert cli.main(["evaluate", "run", *here]) == 0
    data = replace(TrainSettings(), data="folder:x", cache="c").data
    as_it_was = dict.fromkeys(("accelerator", "devices", "backend"))
    assert calls == [
        ("training.evaluate", Path("run"), "best", {"data": None, **as_it_was}),
        ("training.evaluate", Path("run"), "last", {"data": data, **as_it_was}),
        (
            "training.evaluate",
            Path("run"),
            "best",
            {"data": None, "accelerator": "cpu", "devices": 1, "backend": "auto"},
        ),
    ]
