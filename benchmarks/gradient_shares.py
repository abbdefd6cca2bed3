"""Does LLIF favour early time steps, and SLIF recent ones? What docs/analysis.md says of it.

    python benchmarks/gradient_shares.py settings
    python benchmarks/gradient_shares.py networks --presets digits digits-events

``settings`` compares the neurons on normal inputs: in the usual settings, with one of them varied at a time (and
draws that), and in 1,296 combinations, which takes four minutes on a core. ``networks`` trains the presets' networks
with each neuron in all layers, and takes the gradient of the loss on test samples. Intervals are of 95 %, over seeds.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from pathlib import Path

from _options import positive

from stdano.analysis import GradientShare, Interval, Shift, interval, network_shares, share_study

DEFAULT_OUT = Path(__file__).parent / "results" / "gradient_shares"
SWEEPS: dict[str, tuple] = {
    "T": (2, 4, 6, 10, 20),
    "v_threshold": (0.5, 1.0, 1.5, 2.0),
    "tau": (1.1, 2.0, 5.0),
    "decay": ("exp", "linear"),
    "gamma": (0.05, 0.1, 0.2, 0.5),
    "beta": (0.05, 0.1, 0.2, 0.5, 1.0),
    "correlation": (0.0, 0.5, 1.0),
    "detach_adapt": (False, True),
}
GRID: dict[str, tuple] = {
    "T": (2, 4, 6, 10),
    "v_threshold": (1.0, 0.5, 2.0),
    "tau": (1.1, 2.0, 5.0),
    "decay": ("exp", "linear"),
    "detach_adapt": (False, True),
    "mean": (0.0, -0.5, 0.5),
    "correlation": (0.0, 0.5, 1.0),
}
NEURONS = ("LIF", "LLIF", "SLIF")


def text(value: Interval, digits: int = 4) -> str:
    return f"{value.mean:+.{digits}f} ± {value.half:.{digits}f}"


def pair(shift: Shift) -> str:
    return f"{shift.neuron} against LIF" + (" with soft reset" if shift.reset == "soft" else "")


def table(header: tuple[str, ...], rows: list[tuple]) -> None:
    for row in (header, ("---",) * len(header), *rows):
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    print()


def study_settings(options: argparse.Namespace) -> None:
    sweeps = {
        name: share_study(**{name: values}, seeds=options.seeds, neurons=options.neurons)
        for name, values in SWEEPS.items()
    }
    changes = ("mean step", "first half, points", "goes back by")
    for name, rows in sweeps.items():
        cells = [
            (shift.settings[name], pair(shift), text(shift.centre), text(_percent(shift.early), 2), text(shift.reach))
            for shift in rows
            if name in shift.settings
        ]
        table((name, "neuron", *changes), cells)
    grid = share_study(**GRID, seeds=options.grid_seeds, neurons=options.neurons)
    counts = []
    for name in dict.fromkeys(map(pair, grid)):
        rows = [shift for shift in grid if pair(shift) == name]
        holds, centres = Counter(shift.holds for shift in rows), [shift.centre.mean for shift in rows]
        counts.append((name, holds[True], holds[False], holds[None], f"{min(centres):+.4f} to {max(centres):+.4f}"))
    table(("neuron", "holds", "opposite", "neither", "mean step"), counts)
    _draw(options.out, sweeps)


def _percent(share: Interval) -> Interval:
    return Interval(100 * share.mean, 100 * share.half, share.count)


def _draw(out: Path, sweeps: dict[str, list[Shift]]) -> None:
    from stdano.pictures.shares import shares, shifts
    from stdano.pictures.style import save

    longest = {shift.neuron: shift for shift in sweeps["T"] if shift.settings["T"] == 10 and shift.reset == "hard"}
    lines = {"LIF": longest["LLIF"].lif_share, **{name: shift.share for name, shift in longest.items()}}
    out.mkdir(parents=True, exist_ok=True)
    save(shares(lines), out / "shares.png")
    save(shifts({name: sweeps[name] for name in SWEEPS if name != "detach_adapt"}), out / "shifts.png")
    print(out / "shares.png", out / "shifts.png", sep="\n")


def study_networks(options: argparse.Namespace) -> None:
    for preset in options.presets:
        found = {
            (neuron, seed): _of_network(preset, neuron, seed, options)
            for neuron in NEURONS
            for seed in options.of_seeds
        }
        rows = []
        for layer in found["LIF", options.of_seeds[0]]:
            centres = {key: shares[layer].centre for key, shares in found.items()}
            plain = interval([centres["LIF", seed] for seed in options.of_seeds])
            more = [
                text(interval([centres[neuron, seed] - centres["LIF", seed] for seed in options.of_seeds]), 3)
                for neuron in NEURONS[1:]
            ]
            rows.append((layer, text(plain, 3), *more))
        print(f"{preset}: mean step of the loss's gradient")
        table(("layer", "LIF", "LLIF - LIF", "SLIF - LIF"), rows)


def _of_network(preset: str, neuron: str, seed: int, options: argparse.Namespace) -> dict[str, GradientShare]:
    """The shares of a trained network's layers, on the first test samples."""
    from stdano.app.runs import complete
    from stdano.presets import get_preset
    from stdano.settings import replace
    from stdano.training import open_run

    changes = {"epochs": options.epochs} if options.epochs else {}
    settings = replace(get_preset(preset).train, neurons=neuron, seed=seed, **changes)
    setup = open_run(complete(settings, options.out / f"{preset}-{neuron}-{seed}").folder, "last")
    batches = itertools.islice(setup.test_batches.epoch(0), options.batches)
    return network_shares(setup.plain, ((batch.values, batch.labels) for batch in batches))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Shares of time steps in gradients.", allow_abbrev=False)
    parser.add_argument("study", choices=("settings", "networks"))
    parser.add_argument("--seeds", type=positive, default=20, help="of each sweep (default: %(default)s)")
    parser.add_argument("--grid-seeds", type=positive, default=10, help="of the grid (default: %(default)s)")
    parser.add_argument("--neurons", type=positive, default=4096, help="with each seed (default: %(default)s)")
    parser.add_argument("--presets", nargs="+", default=["digits", "digits-events"], help="default: %(default)s")
    parser.add_argument("--of-seeds", nargs="+", type=int, default=[0, 1, 2], help="of networks (default: 0 1 2)")
    parser.add_argument("--epochs", type=positive, default=0, help="of networks; default: the preset's")
    parser.add_argument("--batches", type=positive, default=4, help="of test samples (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder (default: %(default)s)")
    options = parser.parse_args(argv)
    (study_settings if options.study == "settings" else study_networks)(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
