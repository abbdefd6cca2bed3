"""The command line as a user meets it. What computes is replaced; one real run is stopped with Ctrl-C."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import stdano
from stdano import cli
from stdano.presets import get_preset
from stdano.settings import SearchSettings, TrainSettings, replace, to_json


def settings_names(kind):
    return [f.name for part in dataclasses.fields(kind) for f in dataclasses.fields(part.default_factory)]


def test_info_tells_versions_devices_and_backends(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^stdano +{re.escape(stdano.__version__)}$", out, re.M)
    assert re.search(r"^torch +\d", out, re.M) and re.search(r"^processor +\S", out, re.M)
    for backend in ("reference", "cpu", "triton", "cuda"):
        assert re.search(rf"^backend {backend} +(available|missing): \S", out, re.M)


def test_usage(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  stdano {command} +\w", out, re.M) for command in cli.COMMANDS)
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0 and stdano.__version__ in capsys.readouterr().out
    assert cli.main(["trian"]) == 2
    assert "command must be one of demo, search, train, evaluate, ablate, presets, info, got 'trian'" in (
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
        "for name in ('tyro', 'rich', 'lightning_fabric', 'torchmetrics', 'matplotlib', 'sklearn', 'torchvision'):\n"
        "    sys.modules[name] = None\n"
        "from stdano import cli\n"
        "assert cli.main(['info']) == 0 == cli.main(['presets'])\n"
        "for command in ('demo', 'search', 'train', 'evaluate', 'ablate'):\n"
        "    assert cli.main([command]) == 2\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    assert all("is not installed" in line and "pip install 'stdano[app]'" in line for line in lines)


@pytest.fixture
def extra():
    for package in ("tyro", "lightning_fabric", "sklearn", "rich", "matplotlib", "torchmetrics"):
        pytest.importorskip(package, reason="needs the extra [app]")


@pytest.fixture
def calls(extra, monkeypatch, tmp_path):
    """Functions that only note how they were called; in an empty folder, whose ``runs`` nobody makes."""
    import stdano.ablate
    import stdano.demo
    import stdano.search
    import stdano.training

    noted = []

    def replacement(name, result=None):
        def call(*arguments, **keywords):
            noted.append((name, *arguments, keywords) if keywords else (name, *arguments))
            return result

        return call

    monkeypatch.chdir(tmp_path)
    for variable in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    evaluation = stdano.training.Evaluation(0.25, 0.975, 0.125, {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}, 360)
    for module, name, result in (
        (stdano.training, "train", None),
        (stdano.training, "resume", None),
        (stdano.training, "evaluate", evaluation),
        (stdano.search, "search", architecture()),
        (stdano.search, "resume", architecture()),
        (stdano.demo, "demo", None),
        (stdano.ablate, "ablate", None),
    ):
        monkeypatch.setattr(module, name, replacement(f"{module.__name__.removeprefix('stdano.')}.{name}", result))
    return noted


def architecture(settings=None):
    from stdano.search import Architecture

    return Architecture(
        neurons="1201",
        layers=["a", "b", "c", "d"],
        candidates=["LIF", "LLIF", "SLIF"],
        alphas=[[0.0, 1.0, 0.5], [0.0, -1.0, 0.5], [1.0, 0.0, 0.5], [0.0, 1.0, 0.5]],
        model="vgg-small",
        T=6,
        dataset="digits",
        data_fingerprint="0" * 64,
        device_hours=0.0125,
        epochs=3,
        test_accuracy=0.9,
        settings=json.loads(to_json(settings or replace(SearchSettings(), T=6, lr=0.3, epochs=3))),
    )


@pytest.mark.parametrize(
    ("command", "own", "kind", "hidden"),
    [
        ("demo", {"preset", "seed", "epochs", "out"}, None, set()),
        ("search", {"preset", "config", "resume", "out"}, SearchSettings, {"neurons"}),
        ("train", {"preset", "config", "resume", "out", "architecture"}, TrainSettings, set()),
        ("evaluate", {"checkpoint", "data", "root", "cache"}, None, set()),
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
        assert out.endswith(f"stdano train --preset digits --architecture {folder}\n")

    def test_resume(self, calls, capsys):
        assert cli.main(["search", "--resume", "a"]) == 0
        assert calls == [("search.resume", Path("a"))]
        assert capsys.readouterr().out.endswith("stdano train --architecture a\n")

    def test_its_neurons_are_open(self, calls, tmp_path):
        """Also where it begins with the settings of a training run."""
        (tmp_path / "settings.json").write_text(to_json(replace(TrainSettings(), neurons="SLIF")))
        assert cli.main(["search", "--config", "settings.json"]) == 0
        assert calls[0][1] == replace(SearchSettings(), neurons="")


def test_demo(calls):
    assert cli.main(["demo"]) == 0 == cli.main(["demo", "--seed", "3", "--epochs", "2", "--out", "here"])
    assert re.fullmatch(r"runs/demo-\d{8}-\d{6}", str(calls[0][1]))
    assert calls[0][2] == {"preset": "digits", "seed": 0, "epochs": 0}
    assert calls[1] == ("demo.demo", Path("here"), {"preset": "digits", "seed": 3, "epochs": 2})


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
    data = replace(TrainSettings(), data="folder:x", cache="c").data
    assert calls == [
        ("training.evaluate", Path("run"), "best", {"data": None}),
        ("training.evaluate", Path("run"), "last", {"data": data}),
    ]


def raising(error):
    def call(*arguments, **keywords):
        raise error

    return call


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

    monkeypatch.setattr(getattr(stdano, command), command, raising(Interrupted(Path("f/LIF-seed0"), "train")))
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
        "torchmetrics",
        "matplotlib",
        "sklearn",
        "torchvision",
        "tonic",
    }


def test_ctrl_c_in_a_real_process(extra, tmp_path):
    """SIGINT after the first epoch; then --resume to the end."""
    command = [sys.executable, "-m", "stdano.cli", "train", "--preset", "digits", "--epochs", "200", "--width", "0.1"]
    process = subprocess.Popen(
        [*command, "--out", tmp_path / "a"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while not (tmp_path / "a" / "metrics.csv").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err == f"stdano train: interrupted; go on with: stdano train --resume {tmp_path / 'a'}\n"
