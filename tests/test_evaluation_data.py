"""A network is tested by the mean, deviation and classes that it was trained with, whatever it is tested on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")

import torch
from image_files import write_image

from stdano.data import load_data
from stdano.settings import DataSettings, TrainSettings, replace
from stdano.training import evaluate, train
from stdano.training.checkpoint import load_checkpoint, save_checkpoint

TINY = replace(TrainSettings(), width=0.1, T=1, epochs=1, batch_size=8, threads=1, accelerator="cpu")
LEVELS = {"day": 150, "night": 90}


def write_classes(folder: Path, levels: dict[str, int], count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name, level in levels.items():
        for index in range(count):
            values = np.clip(rng.normal(level, 12, (8, 8, 3)), 0, 255).astype(np.uint8)
            write_image(folder / name / f"{index}.png", values)


@dataclasses.dataclass
class Trained:
    """A run, its data, and those data with other images for training."""

    folder: Path
    run: Path
    data: DataSettings

    def other(self, name: str) -> DataSettings:
        return dataclasses.replace(self.data, data=f"folder:{self.folder / name}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("images")
    write_classes(folder / "own" / "train", LEVELS, 8, seed=0)
    write_classes(folder / "own" / "test", LEVELS, 6, seed=1)
    brighter = {name: level + 70 for name, level in LEVELS.items()}
    write_classes(folder / "brighter" / "train", brighter, 2, seed=2)
    for name in ("brighter", "alone"):
        shutil.copytree(folder / "own" / "test", folder / name / "test")
    data = DataSettings(f"folder:{folder / 'own'}", cache=str(folder / "cache"))
    train(dataclasses.replace(TINY, data=data), folder / "run")
    return Trained(folder, folder / "run", data)


@pytest.fixture
def old(trained: Trained, tmp_path: Path) -> Trained:
    """The same as an older version made it."""
    shutil.copytree(trained.folder, tmp_path / "all")
    for name in ("last.pt", "best.pt"):
        state = load_checkpoint(trained.run / name)
        del state["encoding"]
        save_checkpoint(tmp_path / "all" / "run" / name, state)
    data = dataclasses.replace(trained.data, data=f"folder:{tmp_path / 'all' / 'own'}")
    text = (trained.run / "settings.json").read_text().replace(json.dumps(trained.data.data), json.dumps(data.data))
    (tmp_path / "all" / "run" / "settings.json").write_text(text)
    return Trained(tmp_path / "all", tmp_path / "all" / "run", data)


@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.parametrize("name", ["brighter", "alone"])
def test_the_same_images_give_the_same_result(trained: Trained, name: str, checkpoint: str) -> None:
    expected = evaluate(trained.run, checkpoint)
    assert evaluate(trained.run, checkpoint, data=trained.other(name)) == expected
    assert expected.loss == load_checkpoint(trained.run / "last.pt")["progress"]["rows"][-1]["test_loss"]


def test_checkpoints_hold_what_the_network_was_trained_with(trained: Trained) -> None:
    own = load_data(trained.data, 1).encoding
    assert own.classes == ("day", "night") and 0.4 < own.mean[0] < 0.5
    for name in ("last.pt", "best.pt"):
        assert load_checkpoint(trained.run / name)["encoding"] == dataclasses.asdict(own)


def test_training_images_that_changed_later_do_not_count(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "all")
    write_classes(tmp_path / "all" / "own" / "train", {"day": 250, "night": 200}, 8, seed=5)
    data = dataclasses.replace(trained.data, data=f"folder:{tmp_path / 'all' / 'own'}")
    assert evaluate(trained.run, data=data) == evaluate(trained.run)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"dusk": 120, "night": 90}, "day, night, .* has dusk, night; missing: day; unknown: dusk"),
        ({"dawn": 120, **LEVELS}, "day, night, .* has dawn, day, night; unknown: dawn"),
        ({"Day": 150, "Night": 90}, "day, night, .* has Day, Night; missing: day, night; unknown: Day, Night"),
    ],
)
def test_other_classes_are_named(trained: Trained, tmp_path: Path, levels: dict[str, int], message: str) -> None:
    write_classes(tmp_path / "test", levels, 1, seed=0)
    data = dataclasses.replace(trained.data, data=f"folder:{tmp_path}")
    with pytest.raises(
        ValueError, match=f"data must have the classes that the network was trained on, in their order, {message}$"
    ):
        evaluate(trained.run, data=data)


def test_order_and_channels_count(trained: Trained) -> None:
    source = load_data(trained.data, 1)
    with pytest.raises(ValueError, match=r"in their order, night, day, folder:.* has day, night$"):
        source.encoded(dataclasses.replace(source.encoding, classes=("night", "day")))
    with pytest.raises(ValueError, match="data must have 1 channels, as the network was trained on, folder:.* has 3"):
        source.encoded(dataclasses.replace(source.encoding, mean=(0.5,), std=(1.0,)))


def test_an_older_run_takes_the_statistics_of_its_own_data(old: Trained, trained: Trained) -> None:
    expected = evaluate(trained.run)
    assert evaluate(old.run) == evaluate(old.run, data=old.other("brighter")) == expected
    assert evaluate(old.run, data=old.other("alone")) == expected
    moved = old.folder / "moved"
    (old.folder / "own").rename(moved)
    assert evaluate(old.run, data=old.other("moved")) == expected  # these are its own
    with pytest.raises(
        ValueError, match=rf"{old.run} was made by an older version, .* are taken from folder:.*/own, but .* no folder"
    ):
        evaluate(old.run, data=old.other("brighter"))
    moved.rename(old.folder / "own")
    write_classes(old.folder / "own" / "train", LEVELS, 9, seed=9)
    with pytest.warns(RuntimeWarning, match="are taken from folder:.*/own, which has changed since"):
        evaluate(old.run, data=old.other("brighter"))


@pytest.mark.parametrize("values", ["counts", "binary"])
def test_frames_of_events_are_scaled_as_in_training(tmp_path: Path, values: str) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("Train", 40), ("Test", 20)):
        for digit in range(10):
            (tmp_path / part / str(digit)).mkdir(parents=True)
            events = b"".join(bytes([*rng.integers(0, 9, 2), 128, 0, t]) for t in range(count))  # N-MNIST's format
            (tmp_path / part / str(digit) / "0.bin").write_bytes(events)
    settings = DataSettings(data="nmnist", root=str(tmp_path), cache=str(tmp_path), size=8, values=values)
    own = load_data(settings, 2)
    encoding = dataclasses.replace(own.encoding, std=(0.5, 0.5))
    tested = load_data(settings, 2, encoding)
    assert tested.encoding == encoding and len(tested.train) == 0 and tested.size == 8 and tested.temporal
    assert (tested.test.values == own.test.values).all() and tested.fingerprint() != own.fingerprint()
    other = dataclasses.replace(settings, values="counts" if values == "binary" else "binary")
    with pytest.raises(ValueError, match=f"values must be {values}, as the network was trained on, got {other.values}"):
        load_data(other, 2, encoding)


def test_the_training_part_is_not_read(trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from stdano.data import images

    read: list[str] = []
    decode: Callable = images._read
    monkeypatch.setattr(images, "_read", lambda file, size: read.append(file.parts[-3]) or decode(file, size))
    evaluate(trained.run, data=dataclasses.replace(trained.other("brighter"), cache=str(tmp_path)))
    assert set(read) == {"test"}


def test_a_run_that_goes_on_keeps_its_encoding(old: Trained) -> None:
    """Also one that an older version began."""
    from stdano.training import resume

    text = (old.run / "settings.json").read_text()
    (old.run / "settings.json").write_text(text.replace('"epochs": 1', '"epochs": 2'))
    before = load_checkpoint(old.run / "last.pt")["model"]
    resume(old.run)
    state = load_checkpoint(old.run / "last.pt")
    assert state["encoding"]["classes"] == ("day", "night")
    assert not all(torch.equal(before[name], state["model"][name]) for name in before)
