"""Wrong files, places and values: an error that names them, before anything is computed, and never a traceback."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano import LIFNode, terminal
from stdano.app import cli
from stdano.models import create_model
from stdano.pictures import curves
from stdano.pictures.style import save
from stdano.search import Architecture
from stdano.settings import SearchSettings, TrainSettings, read_settings, replace, to_json
from stdano.training import Interrupted, evaluate, report, resume, train
from stdano.training.checkpoint import load_checkpoint

TINY = replace(TrainSettings(), width=0.05, T=1, epochs=1, batch_size=512, threads=1, accelerator="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in a folder whose name rich, a shell and matplotlib would each read in their own way."""
    folder = tmp_path_factory.mktemp("runs") / "exp[lr=0.1] [/bold]x :cat: $x_$"
    train(TINY, str(folder))
    return folder


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(2), nn.Linear(64, 16), LIFNode(), nn.Linear(16, 10))

    def forward(self, x):
        return self.layers(x)


def fails(arguments, capsys):
    """The one line that a command prints."""
    assert cli.main([str(word) for word in arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def copy(run, tmp_path, **files):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    for name, content in files.items():
        (folder / f"{name}.pt").write_bytes(content)
    return folder


class TestPaths:
    def test_are_shown_as_they_are(self, run, capsys):
        assert cli.main(["evaluate", str(run)]) == 0
        shown = "".join(capsys.readouterr().out.split())
        assert "exp[lr=0.1][/bold]x:cat:$x_$" in shown
        report.Display(1, 1).summary(load_checkpoint(run / "last.pt")["progress"]["rows"], run)
        assert "exp[lr=0.1][/bold]x:cat:$x_$" in "".join(capsys.readouterr().out.split())

    def test_in_the_title_of_a_picture(self, run, tmp_path):
        rows = load_checkpoint(run / "last.pt")["progress"]["rows"]
        save(curves.training(rows, r"folder:/a$\b$"), tmp_path / "a.png")
        assert (tmp_path / "a.png").exists()

    def test_in_commands(self, run, capsys):
        assert terminal.quoted(Path("a b")) == "'a b'" and terminal.quoted("-x") == "./-x"
        assert str(Interrupted(Path("a b"), "train")).endswith("stdano train --resume 'a b'")
        assert f"--resume '{run}'" in fails(["train", "--out", run], capsys)

    def test_may_be_strings(self, run):
        assert evaluate(str(run)).samples == 360
        assert resume(str(run)).folder == run


class TestDamagedFiles:
    @pytest.mark.parametrize("content", [b"", b"no checkpoint\n" * 99, b"\x80\x04K\x01.", "cut"])
    def test_checkpoints(self, content, run, tmp_path, capsys):
        content = (run / "last.pt").read_bytes()[:5000] if content == "cut" else content
        folder = copy(run, tmp_path, last=content, best=content)
        path = folder / "last.pt"
        expected = (
            f"{path} must be a checkpoint, but is damaged or another file; begin anew with: stdano train --config "
        )
        assert expected in fails(["train", "--resume", folder], capsys)
        with pytest.raises(ValueError, match=r"best.pt must be a checkpoint, .*; checkpoint 'last' may be whole"):
            evaluate(folder)

    @pytest.mark.parametrize("part", ["model", "optimiser", "progress"])
    def test_what_belongs_to_something_else(self, part, run, tmp_path):
        state = load_checkpoint(run / "last.pt")
        folder = copy(run, tmp_path)
        torch.save({**state, part: {}}, folder / "last.pt")
        with pytest.raises(
            ValueError, match=r"run.last.pt must (hold weights of the network|be a checkpoint of a run)"
        ):
            resume(folder) if part != "progress" else resume_wrong_progress(folder, state)
        torch.save(state["model"], folder / "last.pt")
        with pytest.raises(ValueError, match=r"last.pt must be a checkpoint with model, .*, but is another file"):
            resume(folder)

    def test_metrics(self, run, tmp_path, capsys):
        shutil.copytree(run, tmp_path / "study" / "LIF-seed0")
        (tmp_path / "study" / "LIF-seed0" / "settings.json").write_text(to_json(replace(TINY, neurons="LIF")))
        (tmp_path / "study" / "LIF-seed0" / "metrics.csv").write_text("epoch,loss\n1,x\n")
        words = "--width 0.05 --T 1 --epochs 1 --batch-size 512 --threads 1 --accelerator cpu --methods LIF --seeds 0"
        err = fails(["ablate", *words.split(), "--out", tmp_path / "study"], capsys)
        assert "metrics.csv must hold the metrics of a run, but is damaged" in err and "--resume" in err

    def test_settings(self, tmp_path, capsys):
        path = tmp_path / "settings.json"
        path.write_bytes(to_json(TINY).encode("utf-16"))
        assert read_settings(path, TrainSettings) == TINY
        path.write_bytes(b"\xef\xbb\xbf" + to_json(TINY).encode())
        assert read_settings(path, TrainSettings) == TINY
        for content in (b'{"data": {"data": "\xe9"}}', b"\0" * 50, b"[" * 100_000):
            path.write_bytes(content)
            assert f"{path} must hold the settings of a run, as JSON: " in fails(["train", "--config", path], capsys)


def resume_wrong_progress(folder, state):
    torch.save({**state, "progress": {"rank": 1}}, folder / "last.pt")
    resume(folder)


class TestPlaces:
    """Without a GPU."""

    @pytest.fixture(autouse=True)
    def no_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--accelerator", "cuda"], "accelerator must be cpu or auto here, where torch finds no GPU; got cuda"),
            (["--accelerator", "cpu", "--backend", "cuda"], 'backend="cuda" is not available here'),
            (["--accelerator", "cpu", "--devices", "1000"], "devices must be at most "),
            (["--devices", "1000000"], "devices must be 1024 or less, got 1000000"),
            (["--workers", "100000"], "workers must be 1024 or less, got 100000"),
            (["--seed", str(2**64)], f"seed must be {2**64 - 1} or less, got {2**64}"),
            (["--width", "1e300"], "width must be a finite number above 0 and at most 1000, got 1e+300"),
        ],
    )
    def test_training(self, options, message, tmp_path, capsys):
        assert message in fails(["train", *options, "--out", tmp_path / "run"], capsys)
        assert not (tmp_path / "run").exists()

    def test_a_run_of_a_gpu_is_evaluated(self, run, tmp_path, capsys):
        folder = copy(run, tmp_path)
        text = to_json(replace(TINY, accelerator="cuda", devices=4, backend="cuda"))
        (folder / "settings.json").write_text(text)
        assert "accelerator must be cpu or auto here" in fails(["evaluate", folder], capsys)
        here = ["--accelerator", "cpu", "--devices", "1", "--backend", "auto"]
        assert cli.main(["evaluate", str(folder), *here]) == 0

    def test_too_little_memory(self, monkeypatch, capsys, tmp_path):
        import stdano.training

        for error in (MemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nto")):
            monkeypatch.setattr(stdano.training, "train", lambda *_, error=error: (_ for _ in ()).throw(error))
            message = "stdano train: out of memory: a smaller batch-size, size, T or width"
            assert fails(["train", "--out", tmp_path], capsys).startswith(message)


class TestNetworksOfOnesOwn:
    def test_cannot_go_on_by_command(self, tmp_path, capsys):
        folder = tmp_path / "run"
        train(TINY, folder, model=Net())
        call = f"stdano.training.resume({str(folder)!r}, model=...)"
        assert call in fails(["train", "--resume", folder], capsys)
        assert "has trained a network of its own, Net, which no settings name; evaluate it in Python" in fails(
            ["evaluate", folder], capsys
        )
        assert resume(folder, model=Net()).rows and evaluate(folder, model=Net()).samples == 360
        assert str(Interrupted(folder, "train", given=True)).endswith(f"with the same network in Python: {call}")
        assert "stdano.search.resume(" in str(Interrupted(folder, "search", given=True))

    def test_what_a_search_found_in_one(self, tmp_path, capsys):
        found = dict(layers=["a"], candidates=["LIF"], alphas=[[1.0]], T=1, dataset="digits", data_fingerprint="0")
        found |= dict(device_hours=0.0, epochs=1, test_accuracy=0.5, settings=json.loads(to_json(SearchSettings())))
        Architecture(neurons="0", model="Net", **found).save(tmp_path / "architecture.json")
        err = fails(["train", "--architecture", tmp_path], capsys)
        assert "is of Net, which was given in Python; convert it there: stdano.convert(net, '0')" in err


def test_numbers_of_numpy(tmp_path):
    settings = replace(SearchSettings(), T=np.int64(2), tau=np.float32(1.5), flip=np.bool_(True), root=tmp_path)
    assert [type(v) for v in (settings.model.T, settings.model.tau, settings.data.flip)] == [int, float, bool]
    assert settings.data.root == str(tmp_path) and json.loads(to_json(settings))["model"]["tau"] == 1.5
    net = create_model("vgg-small", T=np.int32(2), num_classes=np.int64(3), width=np.float32(0.1), size=np.int64(8))
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 2, 3)
    for wrong in ("3", 2.5, True, None):
        with pytest.raises(ValueError, match=f"epochs must be a int like 15, got {wrong!r}"):
            replace(TrainSettings(), epochs=wrong)
