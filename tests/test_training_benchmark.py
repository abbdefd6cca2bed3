"""The benchmark of whole networks: the ways are one network, memory and shares are counted right, and tiny runs."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

pytest.importorskip("rich")
pytest.importorskip("spikingjelly")

FOLDER = Path(__file__).parent.parent / "benchmarks"
QUICK, SLOW = ("resnet18", "spikformer"), ("vgg11", "sew-resnet18")
SIZES = {"vgg11": (32, 0.1), "resnet18": (8, 0.1), "spikformer": (16, 0.25), "sew-resnet18": (32, 1.0)}
TINY = ["--network", "spikformer", "--width", "0.1", "--size", "8", "--batch", "2"]
TINY += ["--time-steps", "2", "--rounds", "1"]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A module of the benchmark by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def tiny_step(module: Callable, network: str, way: str):
    size, width = SIZES[network]
    case = module("_networks").NetworkCase(network, 2, batch=2, size=size, width=width)
    return module("_ways").Step(case, way)


@pytest.mark.parametrize("network", [*QUICK, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in SLOW)])
def test_ways_are_one_network(module: Callable, network: str) -> None:
    results = []
    for way in ("plain", "fused", "packed", "spikingjelly", "spikingjelly-memopt"):
        step = tiny_step(module, network, way)
        step.net.double()
        step.images = step.images.double()
        with step.context():
            loss = step.loss()
            loss.backward()
        results.append((loss.detach(), *(p.grad for p in step.net.parameters())))
    assert all(gradient.abs().sum() > 0 for gradient in results[0][1:])
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, rtol=1e-6, atol=1e-9)


def test_a_step_trains_and_leaves_nothing(module: Callable) -> None:
    step = tiny_step(module, "resnet18", "spikingjelly")
    before = [p.detach().clone() for p in step.net.parameters()]
    step()
    assert any(not torch.equal(p, b) for p, b in zip(step.net.parameters(), before, strict=True))
    assert all(p.grad is None for p in step.net.parameters())
    assert step.neurons and not any(isinstance(node.v, torch.Tensor) for node in step.neurons)


def test_held_bytes(module: Callable) -> None:
    held_bytes, n = module("_memory").held_bytes, 1000
    x = torch.ones(n, requires_grad=True)
    assert held_bytes(lambda: x.exp()) == 4 * n, "the result, which is also what is kept"
    assert held_bytes(lambda: x.exp().sin()) == 2 * 4 * n
    assert held_bytes(lambda: x.detach().exp().sin()) == 4 * n
    assert held_bytes(lambda: None) == 0


def test_shares(module: Callable) -> None:
    """Operators go to the group of their name; general ones in a neuron's forward, and behind it, to the neuron."""
    shares = module("_shares").shares

    class Doubling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2).sin()

    x, neuron = torch.randn(2**14, requires_grad=True), Doubling()

    def step() -> None:
        neuron(x).sum().backward()

    named = shares(lambda: torch.mm(x.view(128, 128), x.view(128, 128)), [], "cpu")
    assert sum(named.values()) == pytest.approx(1) and named["convolution, matmul"] > 0.5
    assert shares(step, [], "cpu")["neuron"] == 0
    assert shares(step, [neuron], "cpu")["neuron"] > 0.5
    assert not neuron._forward_hooks and not neuron._forward_pre_hooks


def test_ratios_are_of_one_round(module: Callable) -> None:
    training = module("training")
    rows = [training.Row("fused", [1.0, 2.0, 4.0], 100, 200), training.Row("plain", [2.0, 4.0, 20.0], 150, 300)]
    assert training.times_as_long(rows[1], rows[0]) == 2.0
    rows.append(training.Row("packed", error="not available: why"))
    lines = training.table(rows)
    assert lines[1][1:8:2] == ["4000.0", "2.00", "1.50", "1.50"]
    assert lines[2][0] == "packed" and lines[2][-1] == "not available: why"
    assert all(len(line) == len(training.HEADER) for line in lines)
    assert training.table(rows[1:])[0][3] == "", "nothing to compare with"


def test_marks(module: Callable) -> None:
    training, networks = module("training"), module("_networks")
    mib = 2**20
    rows = [training.Row("fused", [1.0], 120 * mib, 200 * mib), training.Row("packed", [1.02], 82 * mib, 150 * mib)]
    case = networks.NetworkCase("resnet18", 4, 8)
    assert [line[-1] for line in training.marks(case, rows, False)] == ["no", "yes"]
    rows[1].held, rows[1].times = 81 * mib, [1.04]
    assert [line[-1] for line in training.marks(case, rows, False)] == ["yes", "no"]
    assert [line[-1] for line in training.marks(case, rows, True)] == ["yes", "open (machine busy)"]
    for other in (networks.NetworkCase("resnet18", 8, 8), networks.NetworkCase("spikformer", 4, 32)):
        assert training.marks(other, rows, False) == []
    assert training.marks(case, rows[:1], False) == []


def test_script_writes_tables_and_rows(
    module: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    training, file = module("training"), tmp_path / "rows.csv"

    def broken(case: object) -> None:
        raise RuntimeError("no compiler here\nsecond line")

    monkeypatch.setitem(module("_ways").WAYS, "compiled", (broken, None))
    monkeypatch.setattr(training, "keep_freed_memory", lambda: False)  # it would last beyond this test
    threads = ["--threads", str(torch.get_num_threads())]
    assert training.main([*TINY, *threads, "--ways", "fused", "compiled", "--csv", str(file), "--markdown"]) == 0
    out = capsys.readouterr().out
    assert "spikformer, T = 2, B = 2" in out and "Where the time goes" in out
    with file.open(newline="") as opened:
        fused, compiled = csv.DictReader(opened)
    assert list(fused) == training.COLUMNS
    assert fused["times_fused"] == "1.0000" and 0 < int(fused["held_bytes"]) <= int(fused["peak_bytes"])
    assert sum(float(fused[group]) for group in training.GROUPS) == pytest.approx(1, abs=1e-3)
    assert compiled["note"] == "not available: RuntimeError: no compiler here" and compiled["median_ms"] == ""


def test_constant_input(module: Callable, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    constant_input = module("constant_input")
    monkeypatch.setattr(constant_input.stdano, "keep_freed_memory", lambda: False)
    threads = ["--threads", str(torch.get_num_threads())]
    constant_input.main(["--neuron", "lif", "--batch", "1", "--rounds", "1", "--markdown", *threads])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "lif, " in line]
    assert [row[0].strip("| ") for row in rows] == [
        *("BatchNorm and lif, forward", "BatchNorm and lif, train step"),
        *("lif, forward", "lif, train step"),
    ]
    assert all(float(cell.strip("| ")) > 0 for row in rows for cell in row[1:])


def test_preset(module: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    training = module("training")
    options = training.arguments(["--preset", "pr740", "--batch", "2"])
    (case,) = training.cases(options)
    assert (case.network, case.time_steps, case.batch, case.size) == ("sew-resnet18", 4, 2, 224)
    assert (case.classes, case.dtype, options.rounds) == (1000, "bfloat16", 20)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--network", "sew-resnet18", "--width", "0.5"], "--width must be 1 for sew-resnet18, got 0.5"),
        (["--network", "vgg11", "--size", "16"], "--size must be 32 or more for vgg11, got 16"),
        (["--width", "0"], "--width must be above 0 and below 100, got 0.0"),
        (["--time-steps", "0"], "must be at least 1, got 0"),
    ],
)
def test_wrong_options(module: Callable, capsys: pytest.CaptureFixture[str], given: list[str], message: str) -> None:
    with pytest.raises(SystemExit):
        module("training").arguments(given)
    assert message in capsys.readouterr().err
