"""What the tests of the command line share: the functions that it calls, replaced by some that only note how."""

import json
from pathlib import Path

import pytest

from stdano.settings import SearchSettings, replace, to_json

PACKAGES = ("jinja2", "tyro", "lightning_fabric", "sklearn", "rich", "matplotlib")


def needs_the_extra():
    for package in PACKAGES:
        pytest.importorskip(package, reason="needs the extra [app]")


def note_calls(monkeypatch, folder):
    """The list that calls are noted in: name, positional arguments, and keywords where there are any. The working
    directory is ``folder``, and no variable tells of other processes. Reports are not noted, and not written."""
    import stdano.app.ablate
    import stdano.app.demo
    import stdano.report
    import stdano.search
    import stdano.training

    noted = []

    def replacement(name, result=None):
        def call(*arguments, **keywords):
            noted.append((name, *arguments, keywords) if keywords else (name, *arguments))
            return result

        return call

    monkeypatch.chdir(folder)
    for variable in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    evaluation = stdano.training.Evaluation(0.25, 0.975, 0.125, {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}, 360)
    for module, name, result in (
        (stdano.training, "train", None),
        (stdano.training, "resume", None),
        (stdano.training, "evaluate", evaluation),
        (stdano.search, "search", architecture()),
        (stdano.search, "resume", architecture()),
        (stdano.app.demo, "demo", None),
        (stdano.app.ablate, "ablate", None),
    ):
        monkeypatch.setattr(module, name, replacement(f"{module.__name__.rpartition('.')[2]}.{name}", result))
    monkeypatch.setattr(stdano.report, "report", lambda *arguments, **keywords: Path("report.html"))
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


def raising(error):
    def call(*arguments, **keywords):
        raise error

    return call
