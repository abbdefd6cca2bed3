"""The study of the time constant and the decay: what it trains, and its table from runs that are finished."""

import csv
import json
import math
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import tau_and_decay

    yield tau_and_decay
    sys.modules.pop("tau_and_decay")


@pytest.fixture
def finished_runs(study, tmp_path):
    """Of every cell of N-MNIST, three seeds: SLIF is 0.1 below LIF, whatever the settings."""
    for tau in study.TAUS:
        for decay in study.DECAYS:
            for neurons in study.NEURONS:
                for seed in (0, 1, 2):
                    folder = study.Cell("nmnist", tau, decay, neurons).folder(tmp_path, seed)
                    folder.mkdir()
                    accuracy = 0.8 + 0.01 * seed - 0.1 * (neurons == "SLIF")
                    with open(folder / "metrics.csv", "w") as file:
                        csv.writer(file).writerows(
                            [["epoch", "test_accuracy", "firing_rate"], [1, 0, 0], [2, accuracy, 0.25]]
                        )
                    (folder / "settings.json").write_text(json.dumps({"optimiser": {"epochs": 2}}))
    return tmp_path


def test_its_table(study, finished_runs, capsys):
    """Nothing is trained again: the folder that is named does not exist."""
    assert study.main(["--nmnist", "nowhere", "--out", str(finished_runs), "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * 2 * 4
    half = 4.303 * 1 / math.sqrt(3)
    assert f"| nmnist | 1.1 | exp | LIF | 3 | 81.00 | {half:.2f} | 0.2500 |  |" in lines
    assert f"| nmnist | 2.0 | linear | SLIF | 3 | 71.00 | {half:.2f} | 0.2500 | 10.00 ± 0.00 |" in lines
    assert f"| nmnist | 2.0 | linear | SLIF, constant | 3 | 81.00 | {half:.2f} | 0.2500 | 0.00 ± 0.00 |" in lines


def test_what_it_trains(study, tmp_path, monkeypatch):
    """Its commands are ones that the command line takes."""
    from cli_common import note_calls

    from stdano.app import cli

    calls = note_calls(monkeypatch, tmp_path)
    options = type("Options", (), dict(cifar=Path("images"), nmnist=Path("events"), out=tmp_path, epochs=0))
    for cell in (study.Cell("cifar", 2.0, "linear", "SLIF, constant"), study.Cell("nmnist", 1.1, "exp", "LIF")):
        command = cell.command(options, 4)
        assert cli.main(command[command.index("stdano.cli") + 1 :]) == 0
    (_, first, _), (_, second, _) = calls
    assert (first.data.data, first.model.tau, first.model.decay) == ("folder:images", 2.0, "linear")
    assert (first.model.neurons, first.model.detach_adapt, first.optimiser.epochs) == ("SLIF", True, 30)
    assert (second.data.data, second.data.root, second.model.T) == ("nmnist", "events", 8)
    assert (second.model.neurons, second.model.detach_adapt, second.optimiser.seed) == ("LIF", False, 4)
