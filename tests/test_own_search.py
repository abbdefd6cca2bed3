"""A search over four neurons, one of them from the user's own file, from the command line to a network in Python."""

import json
import os
import signal
import sys
from pathlib import Path

import processes
import pytest
import torch
from torch import nn

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

import stdano
from stdano.app import cli
from stdano.nodes.candidates import names_in
from stdano.search import Architecture
from stdano.training.checkpoint import load_checkpoint

# Its spikes raise its threshold for one step.
SOURCE = """
from stdano_kernels import Constant, Neuron, State
from stdano_kernels.define import spike


class Shy(Neuron):
    v = State()
    last = State(0.0)
    kappa = Constant(0.2, doc="what a spike adds")

    def step(n, x, v, last):
        h = n.charge(x, v)
        s = spike(h - (n.v_threshold + n.kappa * last))
        return s, n.reset(h, s, n.v_threshold), s
"""
OWN = "my_shy:Shy(kappa=0.3)"
NAMES = ["LIF", "LIF(tau=4.0)", "ALIF", OWN]
OPTIONS = (
    "search --preset digits --width 0.05 --T 2 --epochs 2 --batch-size 512 --threads 1 --accelerator cpu "
    "--selection perturbation --warmup 1 --no-html --candidates"
)
# The same command, killed between the second and the third decision.
KILLED = """
import os, signal, sys
from stdano.app.cli import main
from stdano.search.loop import SearchRun
step = SearchRun.step
def die(run, *arguments):
    done = step(run, *arguments)
    if (run.progress.epoch, run.progress.step) == (3, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return done
SearchRun.step = die
main(sys.argv[1:])
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with the user's file in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    (tmp_path / "my_shy.py").write_text(SOURCE)
    yield tmp_path
    sys.modules.pop("my_shy", None)


def run(text, *more):
    assert cli.main([*text.split(), *more]) == 0


def same(folder, other):
    a, b = (load_checkpoint(f / "last.pt") for f in (folder, other))
    assert a["model"].keys() == b["model"].keys()
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    found, others = (json.loads((f / "architecture.json").read_text()) for f in (folder, other))
    found.pop("device_hours"), others.pop("device_hours")
    assert found == others and (folder / "alphas.csv").read_text() == (other / "alphas.csv").read_text()


@pytest.mark.slow
def test_from_the_command_line(here):
    given = ["LIF", "LIF(tau=4)", "ALIF", "my_shy:Shy(kappa=0.3)"]
    command = [*OPTIONS.split(), *given, "--out"]
    run(OPTIONS, *given, "--out", "whole")
    environment = dict(os.environ, PYTHONPATH=str(Path(stdano.__file__).parents[1]))
    done = processes.run([sys.executable, "-c", KILLED, *command, "killed"], env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not Path("killed/architecture.json").exists()
    torch.manual_seed(123)
    run("search --resume killed")
    same(Path("killed"), Path("whole"))

    found = Architecture.load(Path("whole/architecture.json"))
    assert found.candidates == NAMES and found.selection == "perturbation"
    assert list(found.fingerprints) == ["my_shy:Shy"]
    # Whatever was found, the user's own is part of what is trained.
    values = json.loads(Path("whole/architecture.json").read_text())
    names = names_in(found.neurons)
    if OWN not in names:
        values["losses"][1] = [0.0, 0.0, 0.0, 1.0]
        values["neurons"] = ", ".join([names[0], OWN, *names[2:]])
        Path("whole/architecture.json").write_text(json.dumps(values))
        found = Architecture.load(Path("whole/architecture.json"))
    run("train --architecture whole --out trained --epochs 1")
    run("evaluate trained")
    trained = load_checkpoint(Path("trained/best.pt"))
    assert list(trained["neurons"]) == ["my_shy:Shy"]

    net = stdano.convert(nn.Sequential(*(stdano.LIFNode() for _ in range(4))), found.neurons)
    made = [stdano.nodes.candidates.candidate(name) for name in names_in(found.neurons)]
    assert [type(layer).neuron for layer in net] == [type(neuron) for neuron in made]
    assert {layer.kappa for layer in net if type(layer).__name__ == "ShyNode"} == {0.3}
    assert net(torch.randn(2, 3, 4)).shape == (2, 3, 4)

    (here / "my_shy.py").write_text(SOURCE.replace("v_threshold + n.kappa", "v_threshold - n.kappa"))
    both = (
        "from stdano.app.cli import main\n"
        "print(main(['evaluate', 'trained']), main(['train', '--architecture', 'whole']))\n"
    )
    done = processes.run([sys.executable, "-c", both], env=environment)
    assert done.stdout.split() == ["2", "2"], done.stderr
    assert " ".join(done.stderr.split()).count("the neuron my_shy:Shy has changed") == 2
