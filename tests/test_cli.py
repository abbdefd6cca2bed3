"""The command line as a user meets it."""

import dataclasses
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

import stdano
from stdano import cli
from stdano.presets import TrainSettings


def test_info_tells_versions_devices_and_backends(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^stdano +{re.escape(stdano.__version__)}$", out, re.M)
    assert re.search(r"^torch +\d", out, re.M) and re.search(r"^processor +\S", out, re.M)
    for backend in ("reference", "cpu", "triton", "cuda"):
        assert re.search(rf"^backend {backend} +(available|missing): \S", out, re.M)


def test_usage(capsys):
    assert cli.main(["--help"]) == 0 and "stdano train" in capsys.readouterr().out
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0 and stdano.__version__ in capsys.readouterr().out
    assert cli.main(["trian"]) == 2
    assert "command must be one of train, info, got 'trian'" in capsys.readouterr().err


def test_info_needs_nothing_but_the_base():
    """In a Python that cannot import what the extras bring."""
    code = (
        "import sys\n"
        "for name in ('tyro', 'rich', 'lightning_fabric', 'torchmetrics', 'matplotlib', 'sklearn', 'torchvision'):\n"
        "    sys.modules[name] = None\n"
        "from stdano import cli\n"
        "assert cli.main(['info']) == 0\n"
        "sys.exit(cli.main(['train']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "tyro is not installed" in done.stderr and "pip install 'stdano[app]'" in done.stderr


class TestTrain:
    @pytest.fixture(autouse=True)
    def needs_the_extra(self):
        pytest.importorskip("tyro", reason="needs the extra [app]")
        pytest.importorskip("lightning_fabric", reason="needs the extra [app]")

    def test_help_explains_every_option(self, capsys):
        with pytest.raises(SystemExit) as ended:
            cli.main(["train", "--help"])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        for name in ("preset", "resume", "out", *(f.name for f in dataclasses.fields(TrainSettings))):
            assert f"--{name.replace('_', '-')} " in out, name
        assert "time constant of the neurons, in time steps" in " ".join(out.replace("│", " ").split())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--preset", "mnist"], "--preset must be one of digits, got 'mnist'"),
            (["--epochs", "0"], "epochs must be 1 or more, got 0"),
            (["--resume", "nowhere"], "settings.json must hold the settings of a run"),
            (["--resume", "nowhere", "--lr", "0.2"], "--resume takes every setting from the run; it goes alone"),
        ],
        ids=["preset", "value", "resume", "resume with settings"],
    )
    def test_errors_in_one_line(self, arguments, message, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert cli.main(["train", *arguments]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    def test_options_reach_the_run(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        arguments = ["--neuron", "SLIF", "--epochs", "1", "--channels", "4", "4", "--batch-size", "512", "--T", "2"]
        assert cli.main(["train", *arguments]) == 0
        (folder,) = (tmp_path / "runs").iterdir()
        assert folder.name.startswith("digits-")
        settings = TrainSettings.from_json(folder / "settings.json")
        assert (settings.neuron, settings.epochs, settings.channels, settings.T) == ("SLIF", 1, (4, 4), 2)
        assert "test accuracy" in capsys.readouterr().out

    def test_ctrl_c_in_a_real_process(self, tmp_path):
        """SIGINT after the first epoch has begun; then --resume to the end, as one that was never stopped."""
        short = ["--epochs", "3", "--channels", "8", "8", "--batch-size", "16"]
        command = [sys.executable, "-m", "stdano.cli", "train", *short]
        process = subprocess.Popen([*command, "--out", tmp_path / "a"], stderr=subprocess.PIPE, text=True)
        while not (tmp_path / "a" / "metrics.csv").exists():  # the first epoch is done, two are left
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 130, err
        assert f"stdano train --resume {tmp_path / 'a'}" in err
        assert cli.main(["train", "--resume", str(tmp_path / "a")]) == 0
        assert cli.main(["train", *short, "--out", str(tmp_path / "b")]) == 0
        a, b = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True)["model"] for run in "ab")
        assert all(torch.equal(a[name], b[name]) for name in a)
