"""A step of training or search does not make the host wait for the backward pass before the optimiser has its work."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano.search.loop import SearchRun
from stdano.settings import SearchSettings, TrainSettings, replace
from stdano.training import devices
from stdano.training.activity import SpikeCounter
from stdano.training.engine import Run
from stdano.training.guard import Interrupt

SMALL = dict(width=0.05, T=2, batch_size=128, threads=1, accelerator="cpu")
READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__")


@pytest.fixture
def events(monkeypatch):
    """Reads of numbers that a device would have, what is begun to be copied, and the steps around them, in order."""
    noted = []

    def note(owner, name, label):
        original = getattr(owner, name)

        def call(*arguments, **keywords):
            noted.append(label)
            count = len(noted)
            result = original(*arguments, **keywords)
            if label in (
                "step",
                "copied",
            ):  # Adam reads its count of steps, which the host has
                del noted[count:]
            return result

        monkeypatch.setattr(owner, name, call)

    for name in READS:
        note(Tensor, name, "read")
    note(devices.Reading, "__init__", "copy")
    note(devices.Reading, "values", "copied")
    return noted, note


def made(kind, settings):
    run = kind(replace(settings, **SMALL), Path("unused"))
    return run, next(run.stream(0, 0))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_of_the_weights(accumulate, events):
    noted, note = events
    run, batches = made(Run, replace(TrainSettings(), accumulate=accumulate))
    note(run.fabric, "backward", "backward")
    note(run.optimiser, "step", "step")
    noted.clear()
    run.weight_step(batches[0], Interrupt())
    assert noted == ["backward"] * (accumulate - 1) + ["copy", "backward", "copied", "step"]


@pytest.mark.parametrize("order", [1, 2])
def test_a_step_of_alpha(order, events):
    """Its loss is on its way before its backward; nothing else is read."""
    noted, note = events
    run, (batch, alpha_batch) = made(SearchRun, replace(SearchSettings(), order=order))
    note(run.architect.optimiser, "step", "step")
    noted.clear()
    run.alpha_step(batch, alpha_batch)
    assert noted == ["copy", "step", "copied"]


def test_counting_spikes_reads_nothing(events):
    noted, _ = events
    run, batches = made(Run, TrainSettings())
    noted.clear()
    with SpikeCounter(run.plain) as counter:
        run.forward(run.plain, batches[0])
        assert noted == []
        assert 0 < counter.rate < 1


def test_numbers_are_summed_in_double():
    run, _ = made(Run, TrainSettings())
    values = devices.Reading(run.fabric, torch.tensor(2.0**-30), 2.0**40 + 2.0**-10, True).values()
    assert values == [2.0**-30, 2.0**40 + 2.0**-10, 1.0]
