"""Warm-up, and the choice of neurons by what their removal does."""

import copy
import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano import SuperNeuron
from stdano.models import layer_neurons
from stdano.pictures import heatmap
from stdano.pictures.style import save
from stdano.search import Architecture, resume, search
from stdano.search.architect import alphas, super_neurons
from stdano.search.loop import SearchRun
from stdano.search.report import read_alphas, write_alphas
from stdano.search.selection import Perturbation
from stdano.settings import SearchSettings, replace
from stdano.training import Interrupted
from stdano.training.checkpoint import load_checkpoint
from stdano.training.engine import Run
from stdano.training.setup import mixed

CANDIDATES = ("LIF", "LIF(tau=4)", "channels_common:Tired")
NAMES = ["LIF", "LIF(tau=4.0)", "channels_common:Tired"]
# Two steps an epoch.
TINY = replace(
    SearchSettings(), width=0.05, dropout=0.2, T=2, epochs=2, batch_size=512, crop=1, alpha_lr=0.02, threads=1,
    accelerator="cpu", candidates=CANDIDATES, selection="perturbation", tune_lr=0.03, tune_epochs=1, warmup=1,
)  # fmt: skip
TUNED = 2 + 3  # epochs: four layers are decided with one between each two


@pytest.fixture(scope="module", autouse=True)
def without_pictures():
    """They take longer than all the rest; test_search.py and test_own_search.py draw them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "draw", lambda run: None)
        yield


def stopping_at(*where):
    def after_step(progress):
        if (progress.epoch, progress.step) == where:
            signal.raise_signal(signal.SIGINT)

    return after_step


class Watched(SearchRun):
    """Notes alpha, the learning rate and the choice after each step."""

    def __init__(self, settings, folder):
        super().__init__(settings, folder)
        self.noted = {}

    def step(self, batches, interrupt):
        done = super().step(batches, interrupt)
        values = torch.cat([alpha.detach().clone() for alpha in alphas(self.plain).values()])
        kept = [n.removed is None or int((~n.removed).sum()) for n in super_neurons(self.plain).values()]
        note = (values, self.sgd.param_groups[0]["lr"], len(batches), kept)
        self.noted.setdefault(self.progress.epoch, []).append(note)
        return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = Watched(TINY, tmp_path_factory.mktemp("whole") / "run")
    before = torch.cat([alpha.detach().clone() for alpha in alphas(run.plain).values()])
    run.start()
    return run, before, run.finish()


def assert_same_search(folder, other):
    a, b = (load_checkpoint(f / "last.pt") for f in (folder, other))
    assert a["model"].keys() == b["model"].keys()
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    assert a["history"] == b["history"] and a["perturbation"] == b["perturbation"]
    found, same = (json.loads((f / "architecture.json").read_text()) for f in (folder, other))
    assert found.pop("device_hours") > 0 and same.pop("device_hours") > 0
    assert found == same
    assert (folder / "alphas.csv").read_text() == (other / "alphas.csv").read_text()


def test_epochs_and_decisions(whole):
    run, _, found = whole
    assert len(run.progress.rows) == TUNED == found.epochs == len(run.history)
    order = run.perturbation.order
    names = list(super_neurons(run.plain))
    assert sorted(order) == sorted(names) and run.perturbation.began == TINY.optimiser.epochs
    assert list(run.perturbation.losses) == order
    # How many candidates are left in each layer while an epoch runs: True for all of them.
    left = [run.noted[epoch][-1][3] for epoch in range(TUNED)]
    for epoch in range(TUNED):
        decided = order[: max(0, epoch - 1)]
        assert left[epoch] == [1 if name in decided else True for name in names]


def test_the_order_is_the_seeds():
    net = nn.Sequential(*(SuperNeuron(2, ("LIF", "SLIF")) for _ in range(9)))
    orders = [Perturbation(net, seed).order for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == list("012345678") for order in orders)


def test_alpha_moves_between_warm_up_and_tuning_alone(whole):
    run, before, found = whole
    for values, _, count, _ in run.noted[0]:  # warm-up
        assert torch.equal(values, before) and count == 1
    for values, _, count, _ in run.noted[1]:
        assert not torch.equal(values, before) and count == 2
    searched = run.noted[1][-1][0]
    for epoch in range(2, TUNED):
        assert all(torch.equal(values, searched) and count == 1 for values, _, count, _ in run.noted[epoch])
    assert found.alphas == searched.view(4, 3).tolist()
    rows = run.progress.rows
    assert [bool(np.isnan(row["alpha_loss"])) for row in rows] == [True, False, True, True, True]


def test_learning_rates(whole):
    run, _, _ = whole
    rates = [{rate for _, rate, _, _ in run.noted[epoch]} for epoch in range(TUNED)]
    assert rates[0] == {TINY.optimiser.lr} and rates[2:] == [{0.03}] * 3
    assert rates[1] == {TINY.optimiser.lr / 2}  # of the cosine over two epochs
    assert [row["lr"] for row in run.progress.rows][2:] == [0.03] * 3


def test_what_is_chosen_hurts_most(whole):
    run, _, found = whole
    assert found.selection == "perturbation" and found.candidates == NAMES
    chosen = layer_neurons("vgg-small", found.neurons)
    names = list(super_neurons(run.plain))
    assert found.layers == names and found.losses == [run.perturbation.losses[name] for name in names]
    for name, neuron, losses in zip(names, chosen, found.losses, strict=True):
        assert len(set(losses)) == 3 and neuron == NAMES[losses.index(max(losses))]
        assert super_neurons(run.plain)[name].choice() == neuron
    assert Architecture.load(run.folder / "architecture.json") == found
    assert found.fingerprints.keys() == {"channels_common:Tired"}


def test_by_alpha(whole):
    run, _, found = whole
    largest = [NAMES[alpha.index(max(alpha))] for alpha in found.alphas]
    assert layer_neurons("vgg-small", found.by_alpha) == largest
    last = run.history[TINY.optimiser.epochs - 2]  # before the first decision
    assert len(layer_neurons("vgg-small", last["neurons"])) == 4


def losses_without(layer, run, epoch):
    """The losses of one layer, from networks that have super neurons without the candidate there."""
    out = []
    for without in range(len(CANDIDATES)):
        other = copy.deepcopy(run.plain)
        old, kept = other.get_submodule(layer), [k for k in range(len(CANDIDATES)) if k != without]
        new = SuperNeuron(old.num_channels, [CANDIDATES[k] for k in kept], tau=old.tau)
        new.alpha.data = old.alpha.detach()[kept]
        parent, _, name = layer.rpartition(".")
        setattr(other.get_submodule(parent), name, new)
        other.train()
        total = seen = 0
        for step, batch in enumerate(run.alpha_batches.epoch(epoch, 0)):
            if step == run.steps:
                break
            torch.manual_seed(mixed(TINY.optimiser.seed, epoch, step, 0))
            with torch.no_grad():
                total += float(run.loss(other, batch)[0]) * batch.total
            seen += batch.total
        out.append(total / seen)
    return out


def test_the_first_decision_by_hand(tmp_path):
    run = SearchRun(TINY, tmp_path / "run")
    for alpha in alphas(run.plain).values():
        nn.init.normal_(alpha)
    layer, epoch = run.perturbation.order[0], run.progress.epoch
    before = {name: value.clone() for name, value in run.plain.state_dict().items()}
    expected = losses_without(layer, run, epoch)
    run.perturbation.decide(run.losses)
    assert run.perturbation.losses == {layer: pytest.approx(expected, rel=1e-5)}
    assert all(torch.equal(value, before[name]) for name, value in run.plain.state_dict().items())
    left = super_neurons(run.plain)[layer]
    assert left.weights().tolist() == [float(k == expected.index(max(expected))) for k in range(3)]
    assert all(n.removed is None for name, n in super_neurons(run.plain).items() if name != layer)


def test_one_candidate_is_decided_without_losses():
    net = nn.Sequential(SuperNeuron(2, ("ALIF",)))
    deciding = Perturbation(net, 0)
    deciding.decide(lambda changes: pytest.fail("nothing to compare"))
    assert deciding.done and deciding.by_layer() == [[0.0]] and net[0].choice() == "ALIF"


# In the warm-up, in the search and at its end, that is at the first decision; in tuning, and at a later decision.
@pytest.mark.parametrize(
    "where",
    [
        pytest.param((0, 1), marks=pytest.mark.exhaustive),
        pytest.param((1, 1), marks=pytest.mark.exhaustive),
        (1, 2),
        pytest.param((2, 1), marks=pytest.mark.exhaustive),
        (3, 2),
        pytest.param((4, 1), marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_ctrl_c_and_resume_end_with_the_same_bits(whole, tmp_path, where):
    with pytest.raises(Interrupted):
        search(TINY, tmp_path / "run", after_step=stopping_at(*where))
    torch.manual_seed(123)
    resume(tmp_path / "run")
    assert_same_search(tmp_path / "run", whole[0].folder)


def test_several_epochs_of_tuning_and_patience(tmp_path):
    """Patience counts from the end of the warm-up on; the first decision comes when it is over."""
    settings = replace(TINY, epochs=9, warmup=1, patience=1, alpha_lr=1e-9, tune_epochs=2)
    run = SearchRun(settings, tmp_path / "run")
    assert run.most_epochs() == 9 + 3 * 2
    run.start()
    assert run.perturbation.began == 3 and len(run.progress.rows) == 3 + 3 * 2
    assert [row["lr"] for row in run.progress.rows][3:] == [0.03] * 6


def test_warm_up_and_patience_with_alpha(tmp_path):
    settings = replace(TINY, selection="alpha", epochs=9, warmup=2, patience=1, alpha_lr=1e-9)
    found = search(settings, tmp_path / "run")
    assert found.epochs == 4 and found.selection == "alpha" and found.losses == []
    assert found.neurons == found.by_alpha


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup": 2}, "warmup must be less than the 2 epochs, got 2"),
        ({"warmup": -1}, "warmup must be 0 or more, got -1"),
        ({"tune_epochs": 0}, "tune_epochs must be 1 or more, got 0"),
        ({"tune_lr": 0.0}, "tune_lr must be a finite number above 0, got 0.0"),
        ({"selection": "chance"}, "selection must be one of .*alpha.*perturbation.*, got 'chance'"),
        ({"candidates": ("LIF", "LIF(tau=0)")}, "tau must be a finite number above 0"),
        ({"candidates": ("LIF", "IntegerLIF")}, "spikes of 0 or 1"),
    ],
    ids=str,
)
def test_wrong_settings(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        search(replace(TINY, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_architectures_of_before(whole, tmp_path):
    run, _, found = whole
    values = json.loads((run.folder / "architecture.json").read_text())
    for name in ("selection", "losses", "fingerprints"):
        del values[name]
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps({**values, "neurons": found.by_alpha}))
    old = Architecture.load(path)
    assert (old.selection, old.losses, old.fingerprints, old.neurons) == ("alpha", [], {}, found.by_alpha)
    values["selection"], values["losses"] = "perturbation", [[0.0, 1.0, 0.5]] * 3
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="must have one entry for each of 4 layers, .* and 3 losses"):
        Architecture.load(path)
    values["losses"] = [
        [float(name != choice) for name in NAMES] for choice in layer_neurons("vgg-small", found.neurons)
    ]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="must have the candidate with the largest of losses"):
        Architecture.load(path)


def test_alphas_png(whole, tmp_path):
    run, _, _ = whole
    svg = save(heatmap.search(run.history, run.names()), tmp_path / "alphas.svg").decode()
    assert "Tired" in svg and "(tau=4.0)" in svg and "channels_common" not in svg


def test_alphas_csv(whole, tmp_path):
    run, _, _ = whole
    assert read_alphas(run.folder / "alphas.csv") == run.history
    with open(run.folder / "alphas.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["choice"] for row in rows} <= set(NAMES) and all(f"weight_{name}" in rows[0] for name in NAMES)
    write_alphas(tmp_path / "alphas.csv", list(alphas(run.plain)), NAMES, run.history)
    assert Path(tmp_path / "alphas.csv").read_text() == (run.folder / "alphas.csv").read_text()
