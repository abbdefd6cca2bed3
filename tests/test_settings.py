"""Settings: saved and read again, replaced by name, checked."""

import dataclasses
import json

import pytest

from stdano.settings import (
    SearchSettings,
    TrainSettings,
    from_json,
    is_search,
    read_settings,
    replace,
    run_settings,
    to_json,
)


def test_replace_finds_the_part():
    settings = replace(SearchSettings(), lr=0.5, data="cifar10", order=2, T=3)
    assert (settings.optimiser.lr, settings.data.data, settings.search.order, settings.model.T) == (
        0.5,
        "cifar10",
        2,
        3,
    )
    assert settings.run == SearchSettings().run
    with pytest.raises(TypeError, match="there is no setting 'order'"):
        replace(TrainSettings(), order=2)


def test_names_are_unique():
    names = [f.name for part in dataclasses.fields(SearchSettings) for f in dataclasses.fields(part.default_factory)]
    assert len(names) == len(set(names)) > 40


def test_json_round_trip():
    settings = replace(SearchSettings(), candidates=("LIF", "SLIF"), lr=0.3, flip=True, tau=2)
    assert from_json(to_json(settings), SearchSettings) == settings
    assert from_json(to_json(settings), TrainSettings) == replace(TrainSettings(), lr=0.3, flip=True, tau=2.0)
    assert from_json("{}", TrainSettings) == TrainSettings()
    assert from_json('{"optimiser": {"lr": 1}}', TrainSettings).optimiser.lr == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "file must hold the settings of a run, as JSON"),
        ("[1]", r"file must hold an object with data, model, optimiser, run, search, got \[1\]"),
        ('{"optimizer": {}}', "file must hold an object with data"),
        ('{"model": {"taus": 1.0}}', "file: model must be an object with some of model, neurons, T"),
        ('{"model": 3}', "file: model must be an object"),
        ('{"model": {"T": "4"}}', "file: model.T must be a int like 4, got '4'"),
        ('{"model": {"T": true}}', "file: model.T must be a int like 4, got True"),
        ('{"data": {"flip": 1}}', "file: data.flip must be a bool like False, got 1"),
    ],
)
def test_what_is_no_settings_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        from_json(text, TrainSettings, "file")


def test_kinds_of_runs(tmp_path):
    for kind, settings in (("search", SearchSettings()), ("train", TrainSettings())):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "settings.json").write_text(to_json(settings))
        assert is_search(tmp_path / kind) == (kind == "search")
        assert run_settings(tmp_path / kind, type(settings)) == settings
    with pytest.raises(ValueError, match="the folder must hold a search, .* holds a training run"):
        run_settings(tmp_path / "train", SearchSettings)
    with pytest.raises(ValueError, match="settings.json must hold the settings of a run"):
        read_settings(tmp_path / "settings.json", TrainSettings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": "all"}, "frames must be one of count, time, got 'all'"),
        ({"values": "sum"}, "values must be one of counts, binary, got 'sum'"),
        ({"crop": -1}, "crop must be 0 or more, got -1"),
        ({"workers": -2}, "workers must be -1 or more, got -2"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"width": 0.0}, "width must be a finite number above 0, got 0.0"),
        ({"alpha_lr": 0.0}, "alpha_lr must be a finite number above 0, got 0.0"),
        ({"order": 3}, "order must be one of 1, 2, got 3"),
        ({"patience": -1}, "patience must be 0 or more, got -1"),
        ({"candidates": ("LIF", "ELIF")}, "candidates must be one of LIF, LLIF, .*got 'ELIF'"),
        ({"candidates": ()}, r"candidates must be a list of one to 8 neurons, got \(\)"),
        ({"candidates": ("LIF", "IntegerLIF")}, "candidates must have spikes of 0 or 1"),
        ({"candidates": ("LIF", "LIF")}, "candidates must be different ones, got LIF, LIF"),
        ({"warmup": 9, "epochs": 9}, "warmup must be less than the 9 epochs, got 9"),
        ({"strategy": "fsdp"}, "strategy must be one of auto, ddp, got 'fsdp'"),
        ({"devices": -1}, "devices must be 0 or more, got -1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_values(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SearchSettings(), **change).check()


def test_defaults_are_allowed():
    SearchSettings().check()
    assert json.loads(to_json(TrainSettings()))["optimiser"]["weight_decay"] == 5e-4
