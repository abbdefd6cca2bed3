"""The command line as a user meets it. What computes is replaced; one real run is stopped with Ctrl-C."""

import dataclasses
import importlib.metadata
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from cli_common import needs_the_extra, note_calls, raising
from processes import HANG_SECONDS

import stdano
from stdano.app import cli
from stdano.settings import SearchSettings, TrainSettings, to_json
from stdano_kernels import backends


def settings_names(kind):
    return [f.name for part in dataclasses.fields(kind) for f in dataclasses.fields(part.default_factory)]


def test_info_tells_versions_devices_and_backends(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^stdano +{re.escape(stdano.__version__)}$", out, re.M)
    assert re.search(r"^torch +\d", out, re.M) and re.search(r"^processor +\S", out, re.M)
    for backend in ("reference", "cpu", "triton", "cuda"):
        assert re.search(rf"^backend {backend} +(available|missing): \S", out, re.M)


def test_info_as_json(capsys, monkeypatch):
    monkeypatch.setenv("STDANO_CACHE", "/somewhere")
    monkeypatch.setenv("CXX", "g++-13")
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        *("stdano", "python", "platform", "processor", "threads", "packages", "cuda_devices", "backends", "environment")
    ]
    assert found["stdano"] == stdano.__version__ and found["threads"] == torch.get_num_threads()
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    bridges = {"nir", "snntorch", "sinabs", "onnx", "onnxruntime"}
    assert bridges <= set(found["packages"])
    assert found["backends"] == {name: dataclasses.asdict(status) for name, status in backends().items()}
    assert found["environment"].items() >= {"STDANO_CACHE": "/somewhere", "CXX": "g++-13"}.items()
    assert cli.main(["info"]) == 0
    rows = dict(re.split(r" +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["torch"] == found["packages"]["torch"] and rows["CXX"] == "g++-13"


def test_usage(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  stdano {command}\s+\w", out, re.M) for command in cli.COMMANDS)
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0 and stdano.__version__ in capsys.readouterr().out
    assert cli.main(["trian"]) == 2
    assert "one of demo, search, train, evaluate, ablate, compare-search, report, presets, info, got 'trian'" in (
        capsys.readouterr().err
    )


def test_presets(capsys):
    assert cli.main(["presets"]) == 0
    assert "cifar10-resnet18-T4" in capsys.readouterr().out
    assert cli.main(["presets", "digits"]) == 0
    assert re.search(r"^epochs +15 +15$", capsys.readouterr().out, re.M)
    assert cli.main(["presets", "digit"]) == 2
    assert capsys.readouterr().err == (
        "stdano presets: preset must be one that stdano presets lists, such as digits, digits-events; got 'digit'\n"
    )


def test_what_needs_nothing_but_the_base():
    """In a Python that cannot import what the extras bring."""
    code = (
        "import sys\n"
        "for name in ('jinja2', 'tyro', 'rich', 'lightning_fabric', 'matplotlib', 'sklearn', 'torchvision'):\n"
        "    sys.modules[name] = None\n"
        "from stdano.app import cli\n"
        "assert cli.main(['info']) == 0 == cli.main(['presets'])\n"
        "for command in ('demo', 'search', 'train', 'evaluate', 'ablate', 'report'):\n"
        "    assert cli.main([command]) == 2\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 6
    assert all("is not installed" in line and "pip install 'stdano[app]'" in line for line in lines)


@pytest.fixture
def calls(monkeypatch, tmp_path):
    needs_the_extra()
    return note_calls(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("command", "own", "kind", "hidden"),
    [
        ("demo", {"preset", "seed", "epochs", "out", "html", "open"}, None, set()),
        ("search", {"preset", "config", "resume", "out", "html", "open"}, SearchSettings, {"neurons"}),
        ("report", {"out", "samples", "open"}, None, set()),
        ("train", {"preset", "config", "resume", "out", "architecture"}, TrainSettings, set()),
        ("evaluate", {"checkpoint", "data", "root", "cache", "accelerator", "devices", "backend"}, None, set()),
        ("ablate", {"preset", "config", "out", "methods", "seeds"}, TrainSettings, {"neurons", "seed"}),
    ],
)
def test_help_explains_every_option(command, own, kind, hidden, calls, capsys):
    assert cli.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    shown = own | ({name.replace("_", "-") for name in settings_names(kind)} if kind else set())
    found = set(re.findall(r"^\W*--([a-zA-Z][\w-]*)", out, re.M)) - {"help"}
    assert found == shown - hidden
    assert calls == []
    if command == "train":
        assert "time constant of the neurons, in time steps" in " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--preset", "mnist"], "preset must be one that stdano presets lists, such as nmnist; got 'mnist'"),
        (["train", "--epochs", "0"], "epochs must be 1 or more, got 0"),
        (["search", "--order", "3"], "order must be one of 1, 2, got 3"),
        (
            ["train", "--resume", "a", "--lr", "0.2"],
            "resume takes every setting from the run; it goes alone, got --resume a",
        ),
        (["search", "--resume=a", "--preset=digits"], "resume takes every setting from the run; it goes alone"),
        (["train", "--config", "nowhere"], "nowhere must hold the settings of a run, as JSON: "),
        (["search", "--preset", "digits", "--config", "a"], "preset must not be given beside config, got digits and a"),
        (["train", "--architecture", "nowhere"], "nowhere must hold the result of a search, as JSON: "),
        (
            ["train", "--preset", "cifar10-vgg16-T4"],
            "neurons must be given for preset cifar10-vgg16-T4, e.g. one of 2000000000110, ",
        ),
        (["evaluate", "nowhere"], "nowhere/settings.json must hold the settings of a run"),
        (["search", "--devices", "2"], "out must be given where several processes run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_in_one_line(arguments, message, calls, capsys, tmp_path):
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"stdano {arguments[0]}: {message}") and err.count("\n") == 1
    assert calls == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["train", "--epoch", "3"], ["search", "--neurons", "0"], ["train", "--T", "x"]])
def test_unknown_options_and_wrong_types(arguments, calls, capsys):
    assert cli.main(arguments) == 2
    assert arguments[1] in capsys.readouterr().err and calls == []


def test_exceptions_become_lines_and_statuses(calls, capsys, monkeypatch):
    from stdano.training import Diverged, Interrupted

    for error, status, message in (
        (Interrupted(Path("a"), "train"), 130, "interrupted; go on with: stdano train --resume a"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            Diverged("the loss", float("nan"), 3, 4, {"a": 0.5}, Path("f")),
            1,
            "the loss is nan in epoch 3, step 4; firing",
        ),
        (OSError("out must be a folder in which"), 2, "out must be a folder in which"),
        (ModuleNotFoundError("tensorboard must be installed for it"), 2, "tensorboard must be installed for it"),
        (
            ModuleNotFoundError("No module", name="tonic"),
            2,
            "tonic is not installed; install what the command needs: pip install 'stdano[events]'",
        ),
    ):
        monkeypatch.setattr(stdano.training, "train", raising(error))
        assert cli.main(["train"]) == status
        err = capsys.readouterr().err
        assert err.startswith(f"stdano train: {message}") and err.count("\n") == 1
    for error in (RuntimeError("a mistake of ours"), ModuleNotFoundError("No module", name="stdano.nothing")):
        monkeypatch.setattr(stdano.training, "train", raising(error))
        with pytest.raises(type(error)):
            cli.main(["train"])


@pytest.mark.parametrize("command", ["demo", "ablate"])
def test_ctrl_c_in_what_makes_several_runs(command, calls, capsys, monkeypatch):
    from stdano.training import Interrupted

    monkeypatch.setattr(getattr(stdano.app, command), command, raising(Interrupted(Path("f/LIF-seed0"), "train")))
    assert cli.main([command, "--out", "f"]) == 130
    assert capsys.readouterr().err == f"stdano {command}: interrupted; go on with the same options and --out f\n"


class TestProcesses:
    """As torchrun tells them."""

    @pytest.fixture(autouse=True)
    def second_of_two(self, calls, monkeypatch):
        for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)

    def test_all_take_the_same_folder(self, calls, capsys):
        assert cli.main(["train"]) == 2
        assert capsys.readouterr().err.startswith("stdano train: process 1: out must be given where several processes")
        assert cli.main(["train", "--out", "here"]) == 0
        assert calls == [("training.train", TrainSettings(), Path("here"))]

    def test_one_prints(self, calls, capsys, monkeypatch, tmp_path):
        from stdano.training import Interrupted

        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "settings.json").write_text(to_json(TrainSettings()))
        assert cli.main(["search", "--out", "here"]) == 0 == cli.main(["evaluate", "run"])
        monkeypatch.setattr(stdano.training, "train", raising(Interrupted(Path("a"), "train")))
        assert cli.main(["train", "--out", "here"]) == 130
        assert capsys.readouterr() == ("", "")


def test_importing_is_quick():
    """What only some commands need is imported by those."""
    code = "import sys, stdano.cli\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {
        "tyro",
        "rich",
        "lightning_fabric",
        "matplotlib",
        "sklearn",
        "torchvision",
        "tonic",
        "jinja2",
    }


def test_ctrl_c_in_a_real_process(tmp_path):
    """SIGINT after the first epoch."""
    needs_the_extra()
    command = [sys.executable, "-m", "stdano.cli", "train", "--preset", "digits", "--epochs", "200", "--width", "0.1"]
    process = subprocess.Popen(
        [*command, "--out", tmp_path / "a"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while not (tmp_path / "a" / "metrics.csv").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 130, err
    assert err == f"stdano train: interrupted; go on with: stdano train --resume {tmp_path / 'a'}\n"
