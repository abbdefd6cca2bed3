"""The benchmark: its arithmetic, its opponents, how it counts memory, and tiny runs. No times are judged."""

from __future__ import annotations

import csv
import importlib
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import processes
import pytest
import torch

import stdano_kernels

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPT = FOLDER / "neuron_throughput.py"
TINY = ["--quick", "--no-compile", "--no-spikingjelly", "--threads", "1"]
TINY_NEURONS = [*TINY, "--section", "neurons", "--elements", "4096"]
SHAPE = (2, 2, 3, 4, 4)
NEURONS = ("lif", "llif", "slif")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    import _contenders
    import _report
    import _timing

    return _contenders, _timing, _report


@pytest.fixture
def module(modules: tuple) -> Callable[[str], ModuleType]:
    """Another module of the benchmark by its name."""
    return importlib.import_module


def run_script(*options: str) -> subprocess.CompletedProcess:
    return processes.run([sys.executable, SCRIPT, *options])


def timing(modules: tuple, implementation: str, median: float, error: str = "", peak: int | None = None):
    contenders, timing_module, _ = modules
    contender = contenders.Contender(implementation, "", lambda: None)
    return timing_module.Timing(contender, median, 0.0, 0.0, error, peak)


@pytest.mark.parametrize(
    ("passes", "dtype", "expected"),
    [("forward", "float32", 8), ("train", "float32", 20), ("train", "bfloat16", 10), ("forward", "float64", 16)],
)
def test_bytes_per_element(modules: tuple, passes: str, dtype: str, expected: int) -> None:
    assert modules[1].bytes_per_element(passes, dtype) == expected


def test_ratio_to_copy_compares_equal_bytes(modules: tuple) -> None:
    _, timing_module, _ = modules
    # A copy of x moves 2 tensors: as much as a forward pass, 2/5 of a train step.
    assert timing_module.ratio_to_copy(3.0, "forward", 2.0) == pytest.approx(1.5)
    assert timing_module.ratio_to_copy(5.0, "train", 2.0) == pytest.approx(1.0)


def test_spread(modules: tuple) -> None:
    assert modules[1].spread([4.0]) == (4.0, 0.0)
    assert modules[1].spread([5.0, 1.0, 2.0, 3.0, 4.0]) == (3.0, 2.0)


@pytest.mark.parametrize("neuron", NEURONS)
def test_plain_equations_do_the_same_work(modules: tuple, neuron: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x, grad = (torch.randn(6, 500, dtype=torch.float64, generator=generator) for _ in range(2))
    outputs = []
    for function in (modules[0].PLAIN[neuron], getattr(stdano_kernels, neuron)):
        leaf = x.clone().requires_grad_()
        spikes = function(leaf)
        spikes.backward(grad)
        outputs.append((spikes, leaf.grad))
    assert 0 < outputs[0][0].mean() < 1
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)


def test_the_own_neuron_does_the_same_work_everywhere(modules: tuple, module: Callable) -> None:
    own = module("_own")
    case = own.own_case("train", "float64", (6, 500), "cpu")
    bench, outputs = modules[1].Bench(case, threads=1), {}
    contenders = own.own_contenders(case, compiled=False, spikingjelly=True)
    assert [c.implementation for c in contenders][-1] == "shipped_lif"
    for contender in contenders[:-1]:
        function = contender.build()
        bench.step(function)()
        outputs[contender] = (function(*bench.inputs), bench.inputs[0].grad)
    first, *others = outputs.values()
    assert len(others) >= 2 and 0 < first[0].mean() < 1 and first[1].abs().sum() > 0
    assert not torch.equal(first[0], contenders[-1].build()(*bench.inputs)), "the threshold adapts"
    for other in others:
        torch.testing.assert_close(first, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("neuron", ["super", *(f"bn_{name}" for name in NEURONS)])
def test_compositions_do_the_same_work(modules: tuple, module: Callable, neuron: str) -> None:
    """Every contender's result and gradients, of x and of the weights, are those of the first."""
    composed = module("_composed")
    shape = (4, 3, 5, 4, 4)
    if neuron == "super":
        case = composed.super_case("train", "float64", shape, "cpu")
    else:
        case = composed.bn_case(neuron.removeprefix("bn_"), "train", "float64", shape, "cpu")
    assert case.neuron == neuron
    bench = modules[1].Bench(case, threads=1)
    assert [t.shape for t in bench.inputs] == [shape, *((n,) for n, _ in case.leaves)]
    contenders = composed.composed_contenders(case, compiled=False)
    assert [c.implementation for c in contenders][-3:] == ["eager", "eager", "unfused"]
    outputs = []
    for contender in contenders:
        function = contender.build()
        bench.step(function)()
        outputs.append((function(*bench.inputs), *(t.grad for t in bench.inputs)))
    assert outputs[0][0].std() > 0 and all(g.abs().sum() > 0 for g in outputs[0][1:])
    for other in outputs[1:]:
        torch.testing.assert_close(outputs[0], other, rtol=1e-9, atol=1e-9)


def test_forward_keeps_no_graph(modules: tuple) -> None:
    case = modules[1].Case("lif", "forward", "float32", (2, 8), leaves=((3, 0.5),))
    bench, seen = modules[1].Bench(case, threads=1), []

    def function(x: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
        seen.extend([torch.is_grad_enabled(), x.requires_grad, leaf.requires_grad, leaf.tolist()])
        return x

    bench.step(function)()
    assert seen == [False, False, False, [0.5] * 3]


def test_peak_bytes(module: Callable) -> None:
    peak_bytes, n = module("_memory").peak_bytes, 1000
    x = torch.ones(n)

    def three_of_which_two_at_once() -> torch.Tensor:
        first = x.exp()  # unary: a number beside a tensor becomes a tensor too, of some bytes
        second = first.exp()
        del first
        return second.exp()

    for _ in range(2):  # the same each time, whatever was counted before
        assert peak_bytes(three_of_which_two_at_once) == 2 * 4 * n
    assert peak_bytes(lambda: x.mul_(x)) == 0
    assert peak_bytes(lambda: x.double().float()) == (8 + 4) * n
    assert peak_bytes(lambda: x.std()) < 4 * n < peak_bytes(lambda: x.sort()), "what operators take for themselves"


def test_extra_bytes_leave_out_inputs_and_gradients(modules: tuple) -> None:
    case = modules[1].Case("lif", "train", "float32", (4, 1000), leaves=((1, 2.0),))
    bench = modules[1].Bench(case, threads=1)
    size = 4 * case.elements
    # exp keeps its result; the gradient of x is the one tensor that backward makes.
    assert bench.extra_bytes(bench.step(lambda x, _: x.exp())) == size
    # A product keeps nothing but its factors, and makes grad*x before it is summed up to one number.
    assert bench.extra_bytes(bench.step(lambda x, factor: x.detach() * factor)) == 2 * size
    # One kernel: spikes, and the gradient of x.
    if "cpu" in modules[0].available_backends("cpu"):
        assert bench.extra_bytes(bench.step(lambda x, _: stdano_kernels.llif(x, backend="cpu"))) == size


def test_vgg_ways_are_the_same_network(modules: tuple, module: Callable) -> None:
    vgg = module("_vgg")
    x, results = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double(), []
    for way in (
        partial(vgg.fused, "llif", modules[0].available_backends("cpu")[0]),
        partial(vgg.one_by_one, stdano_kernels.llif),
        partial(vgg.one_by_one, modules[0].plain_llif),
    ):
        torch.manual_seed(0)
        model = vgg.Vgg11(2, way).double()
        out = model(x)
        out.square().sum().backward()
        results.append((out, *(p.grad for p in model.parameters())))
    # 8 convolutions, weight and bias of 8 BatchNorms, and of the head
    assert len(results[0]) == 1 + 8 * 3 + 2 and results[0][1].abs().sum() > 0
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, rtol=1e-6, atol=1e-9)


def test_memory_table_and_marks(modules: tuple, module: Callable) -> None:
    _, timing_module, report = modules
    marks, mib = module("_marks"), 2**20
    case = timing_module.Case("super", "train", "float32", marks.MARK_SHAPE, leaves=((3, 1 / 3),))
    times = [timing(modules, "cpu", 1.0, peak=10 * mib), timing(modules, "unfused", 2.0, peak=20 * mib)]
    times += [timing(modules, "eager", 30.0, peak=50 * mib), timing(modules, "eager", 16.0, peak=31 * mib)]
    busy = report.Result(case, 0.4, times, others=1.0)
    (line,) = report.memory_table([busy])
    assert line == ["SUPER", "cpu", "float32", "4x16x64x32x32", "10.0", "20.0 (2.00x)", "31.0 (3.10x)", "", ""]
    verdicts = {line[0]: line[2:] for line in marks.marks([busy])}
    # Bytes are the same beside other work, times are not.
    assert verdicts["SUPER train: faster than eager"] == [case.size, "16.00x", "open (machine busy)"]
    assert verdicts["SUPER train: peak extra memory against eager"] == [case.size, "0.32x", "yes"]
    assert verdicts["VGG11_LLIF train: peak extra memory against unfused"] == ["", "", "not measured"]
    other_shape = report.Result(replace(case, shape=SHAPE), 0.4, times)
    verdicts = {line[0]: line[-1] for line in marks.marks([other_shape])}
    assert verdicts["SUPER train: faster than eager"] == "not measured"


def test_speed_up_takes_the_faster_variant_and_skips_failures(modules: tuple, module: Callable) -> None:
    _, timing_module, report = modules
    case = timing_module.Case("lif", "train", "float32", (4, 1024))
    nan = math.nan
    times = [timing(modules, "cpu", 1.0), timing(modules, "eager", 8.0), timing(modules, "eager", 6.0)]
    times += [timing(modules, "compile", nan, "compile failed: E"), timing(modules, "spikingjelly", nan, "no")]
    result = report.Result(case, 0.4, times)
    assert result.speed_up("eager") == 6.0
    assert result.speed_up("compile") is None
    opponents = ("eager", "compile", "spikingjelly")
    (line,) = report.table([result], opponents)
    header = report.header(opponents)
    assert len(header) == len(line)
    assert line[header.index("compile")] == "failed"
    assert line[header.index("x copy")] == "1.00"
    assert "compile failed: E" in line[-1]
    verdicts = {line[0]: line[-1] for line in module("_marks").marks([result])}
    assert verdicts["LIF train: faster than eager"] == "no"
    assert verdicts["LIF train: faster than compile"] == "not measured"
    assert verdicts["aim, LIF train: time of copies of the same bytes"] == "yes"


def test_a_failing_contender_is_reported_and_the_others_are_timed(modules: tuple) -> None:
    contenders, timing_module, _ = modules

    def broken():
        raise RuntimeError("no compiler here\nsecond line")

    good = contenders.Contender("cpu", "", lambda: stdano_kernels.lif)
    bench = timing_module.Bench(timing_module.Case("lif", "train", "float32", (2, 64)), threads=1)
    one_copy, timings, others = bench.measure(
        [good, contenders.Contender("compile", "", broken)], rounds=1, seconds=1e-3
    )
    assert others >= 0 and one_copy > 0 and timings[0].median > 0 and not timings[0].error
    assert timings[1].error == "compile failed: RuntimeError: no compiler here"
    assert math.isnan(timings[1].median)


@pytest.mark.exhaustive
def test_script_writes_rows_and_plot(tmp_path: Path, modules: tuple) -> None:
    file = tmp_path / "new" / "rows.csv"
    first = run_script(*TINY_NEURONS, "--csv", str(file))
    assert first.returncode == 0, first.stderr
    assert "Throughput" in first.stdout and "Marks" in first.stdout
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == modules[2].COLUMNS
    assert {(r["neuron"], r["pass"]) for r in rows} == {(n, p) for n in NEURONS for p in ("forward", "train")}
    assert "eager" in {r["implementation"] for r in rows} and len({r["implementation"] for r in rows}) >= 2
    for row in rows:
        assert (row["dtype"], row["T"], row["N"], row["elements"]) == ("float32", "4", "1024", "4096")
        size = 8 if row["pass"] == "forward" else 20
        rate, bandwidth = float(row["elements_per_s"]), float(row["gbytes_per_s"])
        assert float(row["median_us"]) * rate == pytest.approx(4096e6, rel=1e-2)
        assert bandwidth == pytest.approx(rate * size / 1e9, rel=1e-2)
        assert float(row["ratio_to_copy"]) > 0
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    again = run_script(
        *TINY_NEURONS, "--neuron", "lif", "--csv", str(file), "--markdown", "--plot", str(tmp_path / "other.png")
    )
    assert again.returncode == 0, again.stderr
    assert "| LIF | train | " in again.stdout
    with file.open(newline="") as opened:
        longer = list(csv.DictReader(opened))
    assert len(longer) == len(rows) * 4 // 3
    assert longer[: len(rows)] == rows
    assert (tmp_path / "other.png").exists()


@pytest.mark.exhaustive
def test_script_writes_rows_of_every_section(tmp_path: Path, modules: tuple) -> None:
    file = tmp_path / "rows.csv"
    sizes = ["--elements", "4096", "--shape", *map(str, SHAPE), "--batch", "2"]
    done = run_script(*TINY, *sizes, "--csv", str(file), "--markdown")
    assert done.returncode == 0, done.stderr
    assert all(title in done.stdout for title in ("Throughput", "Own neuron", "Super neuron", "Peak memory", "Marks"))
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == modules[2].COLUMNS
    names = (*NEURONS, "own_alif", "super", "bn_lif", "vgg11_llif")
    assert list(dict.fromkeys(r["neuron"] for r in rows)) == list(names)
    for row in rows:
        composed = row["neuron"] in ("super", "bn_lif")
        assert (row["median_us"] == "") == (row["neuron"] == "vgg11_llif")
        peak = re.search(r"peak extra memory (\d+) bytes", row["note"])
        assert (peak is not None) == (row["neuron"] == "vgg11_llif" or (composed and row["pass"] == "train"))
        assert peak is None or int(peak[1]) > 0
        if composed:
            assert (row["T"], row["N"], row["elements"]) == ("2", "96", "192")
    unfused = [r for r in rows if r["implementation"] == "unfused"]
    assert [r["neuron"] for r in unfused] == ["super", "super", "bn_lif", "bn_lif", "vgg11_llif"]


@pytest.mark.slow
def test_script_runs_one_section(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    done = run_script(*TINY, "--section", "memory", "--batch", "1", "--csv", str(file))
    assert done.returncode == 0, done.stderr
    with file.open(newline="") as opened:
        assert {r["neuron"] for r in csv.DictReader(opened)} == {"vgg11_llif"}
    assert "plot:" not in done.stdout and list(tmp_path.iterdir()) == [file], "nothing to plot"


def test_script_refuses_a_csv_with_other_columns(
    tmp_path: Path, modules: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    import neuron_throughput

    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n")
    assert neuron_throughput.main([*TINY, "--csv", str(file)]) == 1
    assert "other columns" in capsys.readouterr().err
    assert file.read_text() == "a,b\n1,2\n"
