"""The throughput benchmark: its arithmetic, its opponents, and a tiny run of the script. No times are judged."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import stdano_kernels

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPT = FOLDER / "neuron_throughput.py"
TINY = ["--quick", "--elements", "4096", "--no-compile", "--no-spikingjelly", "--threads", "1"]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    import _contenders
    import _report
    import _timing

    return _contenders, _timing, _report


def run_script(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=120)


def timing(modules: tuple, implementation: str, median: float, error: str = ""):
    contenders, timing_module, _ = modules
    contender = contenders.Contender(implementation, "", lambda: None)
    return timing_module.Timing(contender, median, 0.0, 0.0, error)


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


@pytest.mark.parametrize("neuron", ["lif", "llif", "slif"])
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


def test_speed_up_takes_the_faster_variant_and_skips_failures(modules: tuple) -> None:
    _, timing_module, report = modules
    case = timing_module.Case("lif", "train", "float32", 4, 1024)
    nan = math.nan
    times = [timing(modules, "cpu", 1.0), timing(modules, "eager", 8.0), timing(modules, "eager", 6.0)]
    times += [timing(modules, "compile", nan, "compile failed: E"), timing(modules, "spikingjelly", nan, "no")]
    result = report.Result(case, 0.4, times)
    assert result.speed_up("eager") == 6.0
    assert result.speed_up("compile") is None
    (line,) = report.table([result])
    assert line[report.HEADER.index("compile")] == "failed"
    assert line[report.HEADER.index("x copy")] == "1.00"
    assert "compile failed: E" in line[-1]
    verdicts = {line[0]: line[-1] for line in report.marks([result])}
    assert verdicts["LIF train: faster than eager"] == "no"
    assert verdicts["LIF train: faster than compile"] == "not measured"
    assert verdicts["aim, LIF train: time of copies of the same bytes"] == "yes"


def test_a_failing_contender_is_reported_and_the_others_are_timed(modules: tuple) -> None:
    contenders, timing_module, _ = modules

    def broken():
        raise RuntimeError("no compiler here\nsecond line")

    good = contenders.Contender("cpu", "", lambda: stdano_kernels.lif)
    bench = timing_module.Bench(timing_module.Case("lif", "train", "float32", 2, 64), threads=1)
    one_copy, timings, others = bench.measure(
        [good, contenders.Contender("compile", "", broken)], rounds=1, seconds=1e-3
    )
    assert others >= 0 and one_copy > 0 and timings[0].median > 0 and not timings[0].error
    assert timings[1].error == "compile failed: RuntimeError: no compiler here"
    assert math.isnan(timings[1].median)


def test_script_writes_rows_and_plot(tmp_path: Path, modules: tuple) -> None:
    file = tmp_path / "new" / "rows.csv"
    first = run_script(*TINY, "--csv", str(file))
    assert first.returncode == 0, first.stderr
    assert "Throughput" in first.stdout and "Marks" in first.stdout
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == modules[2].COLUMNS
    assert {(r["neuron"], r["pass"]) for r in rows} == {
        (n, p) for n in ("lif", "llif", "slif") for p in ("forward", "train")
    }
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
        *TINY, "--neuron", "lif", "--csv", str(file), "--markdown", "--plot", str(tmp_path / "other.png")
    )
    assert again.returncode == 0, again.stderr
    assert "| LIF | train | " in again.stdout
    with file.open(newline="") as opened:
        longer = list(csv.DictReader(opened))
    assert len(longer) == len(rows) * 4 // 3
    assert longer[: len(rows)] == rows
    assert (tmp_path / "other.png").exists()


def test_script_refuses_a_csv_with_other_columns(
    tmp_path: Path, modules: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    import neuron_throughput

    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n")
    assert neuron_throughput.main([*TINY, "--csv", str(file)]) == 1
    assert "other columns" in capsys.readouterr().err
    assert file.read_text() == "a,b\n1,2\n"
