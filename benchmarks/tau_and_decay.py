"""Which time constant and which decay the paper may have meant: LIF, LLIF and SLIF in all layers for each.

    python benchmarks/tau_and_decay.py --cifar FOLDER --nmnist FOLDER

The paper names neither tau_0 nor how a potential decays in a step; its code base seems to have 1.1 and exp(-1/tau),
SpikingJelly has 2 and 1 - 1/tau. In its table 1 SLIF is the worst of the three. This trains a small VGG on images of
CIFAR-10's size and on N-MNIST for both of each, with SLIF's adaptation as part of the gradient and as a constant, and
says for each which order comes out. Means over seeds, with the 95 % interval of their mean (Student's t). Runs that are
finished are kept, so that an interrupted study goes on when it is called again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from _options import positive

from stdano.analysis import interval

TAUS = (1.1, 2.0)
DECAYS = ("exp", "linear")
NEURONS = {"LIF": ("LIF", False), "LLIF": ("LLIF", False), "SLIF": ("SLIF", False), "SLIF, constant": ("SLIF", True)}
HEADER = ("data", "tau", "decay", "neurons", "seeds", "accuracy", "interval", "firing_rate", "below LIF")
DEFAULT_OUT = Path(__file__).parent / "results" / "tau_and_decay"


@dataclass(frozen=True)
class Cell:
    """A network with one kind of neuron, trained with each seed."""

    data: str
    tau: float
    decay: str
    neurons: str

    def folder(self, out: Path, seed: int) -> Path:
        return out / f"{self.data}-{self.neurons.replace(', ', '-')}-tau{self.tau}-{self.decay}-seed{seed}"

    def command(self, options: argparse.Namespace, seed: int) -> list[str]:
        """Trains, or goes on."""
        folder = self.folder(options.out, seed)
        train = [sys.executable, "-m", "stdano.cli", "train"]
        if (folder / "settings.json").exists():
            return [*train, "--resume", str(folder)]
        where = ["--data", f"folder:{options.cifar}"] if self.data == "cifar" else ["--root", str(options.nmnist)]
        kind, constant = NEURONS[self.neurons]
        preset = {"cifar": "cifar10-small", "nmnist": "nmnist"}[self.data]
        settings = ["--tau", str(self.tau), "--decay", self.decay, "--neurons", kind, "--seed", str(seed)]
        run = ["--threads", "1", "--workers", "0", "--out", str(folder)]
        epochs = ["--epochs", str(options.epochs)] if options.epochs else []
        return [*train, "--preset", preset, *where, *settings, *["--detach-adapt"] * constant, *run, *epochs]


def finished(folder: Path) -> bool:
    if not (folder / "metrics.csv").exists():
        return False
    epochs = json.loads((folder / "settings.json").read_text())["optimiser"]["epochs"]
    return float(last_row(folder)["epoch"]) == epochs


def last_row(folder: Path) -> dict[str, str]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))[-1]


def rows(cells: Sequence[Cell], options: argparse.Namespace) -> list[dict[str, str]]:
    """A row a cell; "below LIF" is the mean difference of the same seeds, with its interval."""
    out = []
    values = {c: [last_row(c.folder(options.out, seed)) for seed in options.seeds] for c in cells}
    for cell, runs in values.items():
        accuracy = [100 * float(run["test_accuracy"]) for run in runs]
        plain = values[Cell(cell.data, cell.tau, cell.decay, "LIF")]
        below = interval([100 * float(a["test_accuracy"]) - b for a, b in zip(plain, accuracy, strict=True)])
        more = "" if cell.neurons == "LIF" else f"{below.mean:.2f} ± {below.half:.2f}"
        rate = statistics.mean(float(run["firing_rate"]) for run in runs)
        numbers = (f"{interval(accuracy).mean:.2f}", f"{interval(accuracy).half:.2f}", f"{rate:.4f}", more)
        line = (cell.data, str(cell.tau), cell.decay, cell.neurons, str(len(runs)), *numbers)
        out.append(dict(zip(HEADER, line, strict=True)))
    return out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="LIF, LLIF and SLIF for several tau and decays.", allow_abbrev=False)
    parser.add_argument("--cifar", type=Path, help="folder with train/CLASS and test/CLASS of images of 32 x 32")
    parser.add_argument("--nmnist", type=Path, help="folder with Train and Test of N-MNIST")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--epochs", type=positive, default=0, help="default: the presets': 30 and 15")
    parser.add_argument(
        "--jobs", type=positive, default=os.cpu_count(), help="runs side by side (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the runs (default: %(default)s)")
    options = parser.parse_args(argv)
    data = [name for name in ("cifar", "nmnist") if getattr(options, name)]
    if not data:
        parser.error("--cifar or --nmnist must name a folder")
    cells = [Cell(*values) for values in itertools.product(data, TAUS, DECAYS, NEURONS)]
    options.out.mkdir(parents=True, exist_ok=True)

    def run(job: tuple[Cell, int]) -> None:
        cell, seed = job
        if finished(cell.folder(options.out, seed)):
            return
        log = cell.folder(options.out, seed)
        with open(log.with_name(f"{log.name}.log"), "w") as file:
            subprocess.run(cell.command(options, seed), stdout=file, stderr=file, check=True)
        print(cell, seed, last_row(cell.folder(options.out, seed))["test_accuracy"], flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, itertools.product(cells, options.seeds)))
    table = rows(cells, options)
    with open(options.out / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(table)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for row in table:
        print(f"| {' | '.join(row.values())} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
