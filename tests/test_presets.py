"""Presets: the paper's numbers, as its tables have them, and settings that can run."""

import json
import math
from importlib.resources import files
from pathlib import Path

import pytest

from stdano.models import neuron_string
from stdano.presets import details, get_preset, overview, presets
from stdano.settings import SearchSettings, TrainSettings

TABLES = Path(__file__).parents[2] / "shared" / "paper" / "paper_tables.json"
PAPER = {name: preset for name, preset in presets().items() if preset.table}
OWN = {name: preset for name, preset in presets().items() if not preset.table}


def test_there_is_one_for_every_row():
    """17 rows of table 3, 14 of table 8, and 3 of table 6 with NDA."""
    assert len(PAPER) == 34 and set(OWN) == {"digits", "digits-events", "nmnist", "cifar10-small"}
    assert [sum(p.table == table for p in PAPER.values()) for table in (3, 8)] == [19, 15]
    assert sorted(name for name in PAPER if name.endswith("-nda")) == [
        "dvs-cifar10-resnet18-T10-nda",
        "dvs-cifar10-vgg11-T10-nda",
        "dvs-cifar10-vgg11-T8-nda",
    ]


@pytest.mark.parametrize("name", presets())
def test_settings_can_run(name):
    preset = get_preset(name)
    assert preset.name == name and type(preset.train) is TrainSettings and type(preset.search) is SearchSettings
    preset.train.check()
    preset.search.check()
    assert preset.search.model.neurons == ""
    for neurons in [preset.train.model.neurons] if preset.train.model.neurons else preset.candidates:
        assert set(neuron_string(preset.train.model.model, neurons)) <= set("012")


@pytest.mark.parametrize("name", PAPER)
def test_names_say_what_it_is(name):
    model, data, run = (getattr(PAPER[name].train, part) for part in ("model", "data", "run"))
    assert name == f"{data.data}-{model.model}-T{model.T}{'-nda' * data.nda}"
    assert run == TrainSettings().run


def test_against_the_tables():
    """Every digit string, accuracy, cost and hyperparameter, from a transcription of the paper's tables."""
    if not TABLES.exists():
        pytest.skip("needs the paper's tables, ../shared/paper/paper_tables.json")
    tables = json.loads(TABLES.read_text())
    seen = set()
    for table, search_table in (("table3", "table4_search"), ("table8", "table7_search_additional")):
        for case, rows in tables[table].items():
            dataset, model = case.split("/")
            training, searching = tables["table5_retrain"][dataset], tables[search_table][dataset]
            for steps, row in rows.items():
                for nda in (False, True):
                    name = f"{dataset}-{model}-T{steps}{'-nda' * nda}"
                    accuracies = [
                        entry["acc"]
                        for entry in tables["table6"][case]
                        if entry["model"] == f"ST-DANO{' + NDA' * nda} (Ours)" and entry["T"] == int(steps)
                    ]
                    assert bool(accuracies) == (name in PAPER)
                    if name not in PAPER:
                        continue
                    seen.add(name)
                    preset, found = PAPER[name], PAPER[name].train
                    assert [round(100 * preset.accuracy, 4)] == accuracies
                    assert preset.gpu_days == row["search_cost_gpu_days"]
                    assert (found.model.neurons or None) == row["config"]
                    assert (preset.status == "repaired") == row["status"].startswith("repaired")
                    assert sorted(preset.candidates) == row.get("all_single_zero_candidates", [])
                    if preset.candidates:
                        assert preset.candidates[0] == row["likely_if_a_zero_was_lost_from_the_longest_run"]
                    own = found.optimiser
                    assert {
                        "optimizer": "SGD",
                        "lr": own.lr,
                        "wd": own.weight_decay,
                        "epochs": own.epochs,
                        "batch": own.batch_size,
                        "dropout": found.model.dropout,
                    } == training
                    alpha, own = preset.search.search, preset.search.optimiser
                    assert {
                        "optimizer": "Adam",
                        "alpha_lr": alpha.alpha_lr,
                        "alpha_wd": alpha.alpha_weight_decay,
                        "epochs": own.epochs,
                        "batch": own.batch_size,
                    } == searching
                    assert own.lr / training["lr"] == pytest.approx(searching["batch"] / training["batch"])
    assert seen == set(PAPER)


def test_one_preset_by_hand():
    preset = get_preset("tiny-imagenet-resnet18-T6")
    assert preset.train.model.neurons == "22002001100110011"
    assert (preset.train.optimiser.lr, preset.search.optimiser.lr) == (0.1, 0.05)
    assert (preset.train.optimiser.batch_size, preset.search.optimiser.batch_size) == (128, 64)
    assert (preset.train.optimiser.epochs, preset.search.optimiser.epochs) == (300, 100)
    assert (preset.search.search.alpha_lr, preset.search.search.alpha_weight_decay) == (1.5e-4, 1e-4)
    data = preset.train.data
    assert (data.size, data.crop, data.flip, data.cutout) == (64, 4, True, 0)
    assert (preset.accuracy, preset.gpu_days, preset.status, preset.verified) == (0.6016, 1.2, "unconfirmed", False)


def test_augmentation_is_appendix_e():
    for preset in PAPER.values():
        data = preset.train.data
        expected = {
            "cifar10": (32, 4, True, 16),
            "cifar100": (32, 4, True, 8),
            "tiny-imagenet": (64, 4, True, 0),
            "dvs-cifar10": (48, 0, False, 0),
            "dvs-gesture": (128, 0, False, 0),
        }[data.data]
        assert (data.size, data.crop, data.flip, data.cutout) == expected
        assert not preset.search.data.nda


def test_neurons_and_loss_are_the_papers():
    for preset in PAPER.values():
        for settings in (preset.train, preset.search):
            model = settings.model
            assert (model.tau, model.decay, model.v_threshold, model.tau_min) == (1.1, "exp", 1.0, 1.05)
            assert (model.gamma, model.beta, model.surrogate_function, model.surrogate_alpha) == (
                0.1,
                0.1,
                "triangle",
                1.0,
            )
            assert (settings.optimiser.momentum, settings.optimiser.lam) == (0.9, 0.05)


def test_strings_that_are_not_certain():
    not_certain = [name for name, preset in PAPER.items() if not preset.train.model.neurons]
    assert not_certain == ["cifar10-vgg16-T4", *(f"cifar100-vgg16-T{steps}" for steps in (2, 4, 6, 8))]
    for name in not_certain:
        preset = PAPER[name]
        assert preset.status == "open" and not preset.verified and len(preset.candidates) >= 3
        with pytest.raises(
            ValueError, match=f"neurons must be given for preset {name}, e.g. one of {preset.candidates[0]}"
        ):
            preset.check("")
        preset.check(preset.candidates[1])
    assert sum(preset.verified for preset in PAPER.values()) == 19  # table 3


def test_unknown_names():
    with pytest.raises(
        ValueError, match=r"that stdano presets lists, such as cifar10-resnet18-T4.*; got 'cifar10-resnet-T4'"
    ):
        get_preset("cifar10-resnet-T4")
    with pytest.raises(ValueError, match="such as digits; got 'xyzzy'"):
        get_preset("xyzzy")


def test_as_text():
    lines = overview(presets().values()).splitlines()
    assert len(lines) == 1 + len(PAPER) + len(OWN) + 2
    line = next(line for line in lines if line.startswith("cifar10-resnet18-T4 "))
    assert line.split()[:4] == ["cifar10-resnet18-T4", "20002000000001001", "95.66", "0.16"]
    assert (
        next(line for line in lines if line.startswith("dvs-gesture-resnet18-T20")).split()[1] == "11011100111001111?"
    )
    text = details(get_preset("dvs-cifar10-resnet18-T10-nda"))
    assert (
        "batch_size          128                 32" in text and "nda                 True                False" in text
    )
    assert "What the paper leaves open" in text and "stdano train --preset dvs-cifar10-resnet18-T10-nda" in text
    assert "--neurons 2000000000110" in details(get_preset("cifar10-vgg16-T4"))
    assert "paper" not in details(get_preset("digits"))


def test_the_data_are_plain_facts():
    """Read from the package, and without anything that JSON does not have."""
    facts = json.loads(files("stdano.presets").joinpath("paper.json").read_text(encoding="utf-8"))
    assert len(facts["rows"]) == 31
    numbers = [value for row in facts["rows"] for value in row.values() if isinstance(value, float)]
    assert all(map(math.isfinite, numbers)) and len(numbers) > 60
