"""The search: bilevel steps, checkpoints, what it leaves behind."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

import stdano
from stdano import LIFNode, SuperNeuron
from stdano.nodes.candidates import DIGITS
from stdano.nodes.neurons import CANDIDATES
from stdano.search import Architecture, resume, search
from stdano.search.loop import SearchRun
from stdano.settings import SearchSettings, TrainSettings, read_settings, replace
from stdano.training import Diverged, Interrupted, evaluate, train
from stdano.training import resume as resume_training
from stdano.training.checkpoint import load_checkpoint
from stdano.training.guard import Interrupt

TINY = replace(
    SearchSettings(), width=0.1, dropout=0.2, T=2, epochs=3, batch_size=128, crop=1, alpha_lr=0.02, threads=1,
    accelerator="cpu",
)  # fmt: skip
FILES = {
    "settings.json", "last.pt", "best.pt", "metrics.csv", "curve.png", "architecture.json", "alphas.csv", "alphas.png"
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, search(TINY, folder)


def assert_same_search(folder, other):
    a, b = (load_checkpoint(f / "last.pt") for f in (folder, other))
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    assert a["history"] == b["history"]
    found, same = (Architecture.load(f / "architecture.json") for f in (folder, other))
    assert (found.neurons, found.alphas, found.test_accuracy) == (same.neurons, same.alphas, same.test_accuracy)
    assert (folder / "alphas.csv").read_text() == (other / "alphas.csv").read_text()


def test_what_a_search_leaves(whole):
    folder, found = whole
    assert {path.name for path in folder.iterdir()} == FILES
    assert Architecture.load(folder / "architecture.json") == found
    written = json.loads((folder / "architecture.json").read_text())
    assert written["neurons"] == found.neurons and len(found.neurons) == 4
    assert found.epochs == 3 and 0 < found.device_hours < 1 and len(found.data_fingerprint) == 64
    assert written["settings"] == json.loads((folder / "settings.json").read_text())
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(0 < float(row["entropy"]) <= 1.0987 for row in rows)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert all(0 < float(row["firing_rate"]) < 1 for row in rows)
    with open(folder / "alphas.csv") as file:
        assert len(list(csv.DictReader(file))) == 3 * 4


def test_the_alpha_step_moves_alpha_and_nothing_else():
    run = SearchRun(TINY, Path("unused"))
    before = {name: value.clone() for name, value in run.plain.state_dict().items()}
    run.alpha_step(*next(run.stream(0, 0)))
    names = {name for name in before if name.endswith("alpha")}
    moved = {name for name, value in run.plain.state_dict().items() if not torch.equal(value, before[name])}
    assert len(names) == 4 and moved == names
    assert all(parameter.grad is None for parameter in run.plain.parameters())


def test_the_weight_step_leaves_alpha_alone():
    run = SearchRun(TINY, Path("unused"))
    before = {name: value.clone() for name, value in run.plain.named_parameters()}
    run.weight_step(next(run.stream(0, 0))[0], Interrupt())
    moved = {name for name, value in run.plain.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if not name.endswith("alpha")}


def test_halves_are_disjoint_and_seeded():
    run, same, other = (SearchRun(replace(TINY, seed=seed), Path("unused")) for seed in (0, 0, 1))
    halves = [[set(half.tolist()) for half in r.halves()] for r in (run, same, other)]
    assert halves[0] == halves[1] and halves[0][0] != halves[2][0]
    assert [len(half) for half in halves[0]] == [718, 719]
    assert halves[0][0] | halves[0][1] == set(range(1437))


def test_ctrl_c_and_resume_end_with_the_same_bits(whole, tmp_path):
    def after_step(progress):
        if (progress.epoch, progress.step) == (1, 2):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=f"stdano search --resume {tmp_path / 'run'}"):
        search(TINY, tmp_path / "run", after_step=after_step)
    torch.manual_seed(123)
    resume(tmp_path / "run")
    assert_same_search(tmp_path / "run", whole[0])


@pytest.mark.slow
def test_sigkill_and_resume_end_with_the_same_bits(whole, tmp_path):
    folder = tmp_path / "run"
    code = f"""
import os, signal
from pathlib import Path
from stdano.settings import SearchSettings, read_settings
from stdano.search import search
def die(progress):
    if (progress.epoch, progress.step) == (2, 3):
        os.kill(os.getpid(), signal.SIGKILL)
search(read_settings(Path({str(whole[0] / "settings.json")!r}), SearchSettings), Path({str(folder)!r}), after_step=die)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL, done.stderr
    resume(folder)
    assert_same_search(folder, whole[0])


def test_patience_ends_a_search_early(tmp_path):
    found = search(replace(TINY, epochs=30, alpha_lr=1e-9, patience=2), tmp_path / "run")
    assert found.epochs == 3  # two epochs after the first with the same choice


@pytest.mark.slow
def test_second_order_runs_and_resumes(tmp_path):
    settings = replace(TINY, order=2, epochs=2)

    def after_step(progress):
        if (progress.epoch, progress.step) == (0, 2):
            signal.raise_signal(signal.SIGINT)

    search(settings, tmp_path / "a")
    with pytest.raises(Interrupted):
        search(settings, tmp_path / "b", after_step=after_step)
    resume(tmp_path / "b")
    assert_same_search(tmp_path / "a", tmp_path / "b")
    first = search(replace(settings, order=1), tmp_path / "c")
    assert first.alphas != Architecture.load(tmp_path / "a" / "architecture.json").alphas


def test_two_candidates(tmp_path):
    found = search(replace(TINY, candidates=("LIF", "SLIF"), epochs=1), tmp_path / "run")
    assert set(found.neurons) <= {"0", "2"} and all(len(alpha) == 2 for alpha in found.alphas)


class Net(nn.Module):
    """Somebody else's: time first, and images repeated."""

    def __init__(self):
        super().__init__()
        self.norm, self.neuron = nn.BatchNorm1d(16), LIFNode(tau=1.5)
        self.body, self.head = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x):
        currents = self.norm(self.body(x.flatten(2)).flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.head(self.neuron(currents))


def test_a_network_that_is_given(tmp_path):
    net = Net()
    found = search(replace(TINY, epochs=2), tmp_path / "run", model=net)
    assert (found.model, found.layers, len(found.neurons)) == ("Net", ["neuron"], 1)
    assert isinstance(net.neuron, SuperNeuron) and net.neuron.tau == 1.5
    again = resume(tmp_path / "run", model=Net())
    assert again == found
    stdano.convert(net, {"SuperNeuron": lambda layer: layer.node()})
    assert type(net.neuron) is CANDIDATES[DIGITS[found.neurons]]
    settings = read_settings(tmp_path / "run" / "settings.json", TrainSettings)
    assert len(train(replace(settings, epochs=1), tmp_path / "retrained", model=net).rows) == 1


def test_retraining_what_was_found(whole, tmp_path):
    folder, found = whole
    settings = replace(read_settings(folder / "settings.json", TrainSettings), neurons=found.neurons, epochs=1)
    train(settings, tmp_path / "run")
    assert evaluate(tmp_path / "run").samples == 360


def test_searches_and_training_runs_are_told_apart(whole, tmp_path):
    with pytest.raises(ValueError, match="the folder must hold a training run, .* holds a search"):
        resume_training(whole[0])
    with pytest.raises(ValueError, match="the folder must hold a training run, .* holds a search"):
        evaluate(whole[0])
    train(replace(read_settings(whole[0] / "settings.json", TrainSettings), epochs=1), tmp_path / "run")
    with pytest.raises(ValueError, match="the folder must hold a search, .* holds a training run"):
        resume(tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_search(tmp_path):
    with pytest.raises(Diverged, match=r"the loss for alpha is (nan|inf) in epoch 1, step 2;"):
        search(replace(TINY, lr=1e30, dropout=0.0), tmp_path / "run")
