"""Declarations of one's own that change after a search or a training has used them."""

import importlib
import json
import shutil
import sys

import pytest
from torch import nn

from stdano import SuperNeuron
from stdano.nodes.candidates import candidate, check_fingerprints, fingerprints

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano.search import Architecture, search
from stdano.search import resume as resume_search
from stdano.settings import SearchSettings, TrainSettings, read_settings, replace
from stdano.training import evaluate, resume, train
from stdano.training.engine import Run

SOURCE = '''
from stdano_kernels import Constant, Neuron, Option, State
from stdano_kernels.define import detach, exp, spike, where


class Mine(Neuron):
    """Of the user."""

    v = State()
    b = State(0.25)
    kappa = Constant(0.2, above=0.0, doc="how much")
    twice = Option(False, doc="as it says")
    kind = Option("a", "b", "c", doc="which")

    def step(n, x, v, b):
        h = n.charge(x, v) - n.kappa * b
        if n.twice:
            h = h * 2.0
        if n.kind == "c":
            h = h + 0.125
        if n.twice and n.kind == "b" and n.v_reset is None:
            h = h - 0.0625
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold), 0.75 * b + s
'''
NAME = "my_fingerprinted:Mine"
TINY = replace(
    SearchSettings(), width=0.1, dropout=0.0, T=1, epochs=1, batch_size=512, crop=1, threads=1, accelerator="cpu",
    candidates=("LIF", NAME),
)  # fmt: skip
SAME = {
    "comments": ("        h = n.charge", "        # The charge.\n        h = n.charge"),
    "formatting": ("n.charge(x, v) - n.kappa * b", "(\n            n.charge(x, v)\n            - n.kappa*b)"),
    "documentation": ('"""Of the user."""', '"""Of somebody else."""'),
    "doc of a constant": ('doc="how much"', 'doc="how little"'),
    "a local": ("s = spike(h - n.v_threshold)\n", "s = spike(h - n.v_threshold)\n        unused = b\n"),
    "a helper": ("h = n.charge(x, v) - n.kappa * b", "h = (lambda c: c - n.kappa * b)(n.charge(x, v))"),
}
OTHER = {
    "equation": ("- n.kappa * b\n", "+ n.kappa * b\n"),
    "number": ("0.75 * b + s", "0.5 * b + s"),
    "order of the states": ("n.reset(h, s, n.v_threshold), 0.75 * b + s", "0.75 * b + s, n.reset(h, s, n.v_threshold)"),
    "detached": ("n.kappa * b\n", "n.kappa * detach(b)\n"),
    "default": ("Constant(0.2,", "Constant(0.3,"),
    "bound": ("above=0.0", "above=-1.0"),
    "none allowed": ('above=0.0, doc="how much"', 'above=0.0, or_none=True, doc="how much"'),
    "default of an option": ("Option(False", 'Option("x", "y"'),
    "order of choices": ('Option("a", "b", "c"', 'Option("b", "a", "c"'),
    "choices": ('Option("a", "b", "c"', 'Option("a", "c"'),
    "one option's equation": ("h = h * 2.0", "h = h * 3.0"),
    "last choice's equation": ("h = h + 0.125", "h = h + 0.25"),
    "of several options together": ("h - 0.0625", "h - 0.5"),
    "rest": ("State(0.25)", "State(0.5)"),
    "default threshold": ("    kappa =", "    v_threshold = Constant(1.5)\n    kappa ="),
    "a surrogate": (
        "    def step",
        "    def surrogate(n, u):\n        return where(u >= 0, 1.0, 0.0), exp(-u * u)\n\n    def step",
    ),
    "soft reset alone": ("n.reset(h, s, n.v_threshold)", "(h - s * (0.5 if n.v_reset is None else h))"),
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes the user's file, with other text in it, and forgets what was imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(old="", new="", name="Mine"):
        text = SOURCE.replace("class Mine", f"class {name}")
        assert not old or text.count(old) == 1
        (tmp_path / "my_fingerprinted.py").write_text(text.replace(old, new) if old else text)
        forget()

    def forget():
        sys.modules.pop("my_fingerprinted", None)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)  # two texts of the same second and size
        importlib.invalidate_caches()

    write()
    yield write
    sys.modules.pop("my_fingerprinted", None)


def now():
    return fingerprints([type(candidate(NAME))])


def test_what_has_fingerprints(mine):
    found = now()
    assert list(found) == [NAME] and len(found[NAME]) == 16
    assert fingerprints(type(candidate(n)) for n in ("LIF", "ALIF(tau=4)", NAME, f"{NAME}(kappa=1)")) == found


@pytest.mark.parametrize("change", SAME)
def test_how_a_source_looks_does_not_matter(mine, change):
    before = now()
    mine(*SAME[change])
    assert now() == before


def test_names_of_locals_do_not_matter(mine, tmp_path):
    before = now()
    path = tmp_path / "my_fingerprinted.py"
    text = path.read_text()
    mine()
    path.write_text(text.replace("h ", "potential ").replace("(h,", "(potential,"))
    assert now() == before


@pytest.mark.parametrize("change", OTHER)
def test_what_is_computed_does(mine, change):
    before = now()
    mine(*OTHER[change])
    assert now() != before
    with pytest.raises(ValueError, match=f"file.json: the neuron {NAME} has changed .*is {now()[NAME]}, and was"):
        check_fingerprints(before, "file.json")


def test_all_changes_differ(mine):
    found = set()
    for change in OTHER.values():
        mine(*change)
        found.add(now()[NAME])
    assert len(found) == len(OTHER)


def test_architectures_of_a_neuron_that_changed(mine, tmp_path):
    def network():
        return nn.Sequential(SuperNeuron(2, ("LIF", NAME)))

    values = {"settings": TINY, "fingerprint": "", "device_hours": 0.0, "epochs": 1, "test_accuracy": 0.0}
    found, path = Architecture.from_model(network(), **values), tmp_path / "architecture.json"
    assert found.fingerprints == now() and found.candidates == ["LIF", NAME]
    found.save(path)
    assert Architecture.load(path) == found
    mine(*SAME["comments"])
    assert Architecture.load(path) == found
    mine(*OTHER["equation"])
    with pytest.raises(ValueError, match=f"^{path}: the neuron {NAME} has changed since the file was written"):
        Architecture.load(path)
    mine(name="Another")
    with pytest.raises(ValueError, match=f"^{path}: the neuron '{NAME}' cannot be imported: AttributeError"):
        Architecture.load(path)
    (tmp_path / "my_fingerprinted.py").unlink()
    sys.modules.pop("my_fingerprinted")
    with pytest.raises(ValueError, match=f"^{path}: the neuron '{NAME}' cannot be imported: ModuleNotFoundError"):
        Architecture.load(path)
    mine()
    assert Architecture.load(path) == found
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprints": {"LIF": 3}}))
    with pytest.raises(ValueError, match=r"fingerprints must be dict\[str, str\]"):
        Architecture.load(path)


def test_runs_of_a_neuron_that_changed(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "draw", lambda run: None)
    run, found = tmp_path / "run", tmp_path / "search"
    search(TINY, found)
    settings = read_settings(found / "settings.json", TrainSettings)
    train(replace(settings, neurons=f"LIF, {NAME}, LIF, {NAME}(kappa=0.5)"), run)
    expected = evaluate(run)
    mine(*SAME["formatting"])
    assert evaluate(run) == expected
    resume(run), resume_search(found)
    mine(*OTHER["number"])
    reason = f"the neuron {NAME} has changed since the file was written: the fingerprint of its step"
    for call, path in ((evaluate, run / "best.pt"), (resume, run / "last.pt"), (resume_search, found / "last.pt")):
        with pytest.raises(ValueError, match=f"^{path}: {reason}"):
            call(path.parent)
    mine(name="Another")
    for folder, call in ((run, evaluate), (run, resume), (found, resume_search)):
        with pytest.raises(ValueError, match=f"'{NAME}.*' cannot be imported: AttributeError"):
            call(folder)
