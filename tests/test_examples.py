"""Every example runs, at reduced size, and comes to the result that it claims."""

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import processes
import pytest
import torch.distributed as dist
from event_files import nmnist_bytes, write

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano.search import Architecture

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "examples"
NMNIST = TESTS.parents[1] / "shared" / "data" / "nmnist-subset"


@pytest.fixture
def run(monkeypatch, capsys):
    """What an example prints, run in this process."""

    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        module.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return run


def numbers(pattern, text):
    """What the groups of all matches hold, as numbers."""
    found = [float(value) for match in re.finditer(pattern, text) for value in match.groups()]
    assert found, f"{pattern} is not in {text}"
    return found


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_each_is_short_listed_and_tested(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 100
    assert f"[`{name}.py`]({name}.py)" in (EXAMPLES / "README.md").read_text()
    assert any(f'"{name}' in path.read_text() for path in TESTS.glob("test_*.py"))


@pytest.mark.slow
def test_a_spikingjelly_network_stays_the_same(run):
    pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    text = run("faster_spikingjelly", "--fast")
    assert "3 fused" in text and len(numbers(r"([\d.]+) ms a step", text)) == 2
    assert numbers(r"largest difference of logits and gradients: (\S+)", text)[0] < 1e-12
    theirs, ours = numbers(r"loss ([\d.]+)", text)
    assert theirs < 2.29 and ours == pytest.approx(theirs, abs=0.02)


@pytest.mark.slow
def test_a_search_finds_neurons_with_which_the_network_learns(run, tmp_path):
    text = run("search_own_network", "--fast", "--folder", tmp_path / "runs")
    found = Architecture.load(tmp_path / "runs" / "search" / "architecture.json")
    assert f"found: {found.neurons};" in text and len(found.layers) == 3
    assert set(found.candidates) == {"LIF", "LIF(tau=4.0)", "LLIF", "ALIF"}
    tuned, trained = numbers(r"(?:tuned from the search|trained from scratch): accuracy ([\d.]+)", text)
    assert tuned > found.test_accuracy and trained > 0.2  # by chance 0.1


def write_recordings(root, train=6, test=2):
    """N-MNIST's files with the events of each digit in rows of its own."""
    rng = np.random.default_rng(0)
    for part, count in (("Train", train), ("Test", test)):
        for digit in range(10):
            for index in range(count):
                t = np.sort(rng.integers(0, 300_000, 400))
                x, y = rng.integers(0, 34, 400), 3 * digit + rng.integers(0, 4, 400)
                events = np.stack([t, x, y, rng.integers(0, 2, 400)], axis=1).tolist()
                write(root / part / str(digit) / f"{index:05}.bin", nmnist_bytes(events))


def some_real_recordings(root, train=12, test=4):
    if not NMNIST.is_dir():
        pytest.skip(f"there are no recordings of N-MNIST in {NMNIST}")
    for part, count in (("Train", train), ("Test", test)):
        for digit in range(10):
            (root / part / str(digit)).mkdir(parents=True)
            for file in sorted((NMNIST / part / str(digit)).iterdir())[:count]:
                shutil.copy(file, root / part / str(digit))


@pytest.mark.slow
@pytest.mark.parametrize("recordings", [write_recordings, some_real_recordings])
def test_an_own_neuron_learns_events(run, tmp_path, recordings):
    recordings(tmp_path / "data")
    options = ("--root", tmp_path / "data", "--cache", tmp_path / "cache", "--folder", tmp_path / "run")
    text = run("own_neuron_nmnist", *options, "--epochs", 8, "--channels", 8)
    assert "FAILS" not in text and "2 fused" in text
    losses = numbers(r"loss ([\d.]+)", text)
    assert losses[-1] < losses[0] - 0.2
    assert numbers(r"test accuracy ([\d.]+)", text)[0] > 0.2  # by chance 0.1
    assert any(kappa != 0.2 for kappa in numbers(r"is now (\S+) to (\S+)", text))


@pytest.mark.slow
def test_carried_state_answers_what_was_long_ago(run):
    text = run("long_events", "--fast")
    carried, reset = numbers(r"accuracy ([\d.]+) in the last", text)
    assert carried > 0.9 and reset < 0.7  # by chance 0.5
    whole, levels, chunk = numbers(r"([\d.]+) MiB", text)
    assert levels < whole and chunk < 0.4 * whole


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_two_processes_train_as_one_does(run):
    options = ("--epochs", "2", "--channels", "4")
    environment = {name: value for name, value in os.environ.items() if "WORLD" not in name and "RANK" not in name}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = processes.run([*torchrun, EXAMPLES / "fabric_torchrun.py", *options], env=environment, check=True)
    two, one = done.stdout, run("fabric_torchrun", *options)
    assert "processes: 2" in two and "processes: 1" in one and two.count("epoch 1:") == 1
    losses = numbers(r"loss ([\d.]+)", one)
    assert losses[1] < losses[0]
    assert numbers(r"loss ([\d.]+)", two) == pytest.approx(losses, rel=4e-3)  # without synchronisation 1.4e-2
    accuracies = (numbers(r"accuracy ([\d.]+)", text) for text in (one, two))
    assert next(accuracies) == pytest.approx(next(accuracies), abs=0.02)
