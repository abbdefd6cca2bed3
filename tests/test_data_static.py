"""Image data sets in their published layouts: what is read, what is kept, and what is said where it cannot be."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets.utils
from image_files import TINY, loader, pack, write_cifar, write_tiny_imagenet
from PIL import Image

from stdano.data import DATASETS, DataSource, load_data
from stdano.settings import DataSettings


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., DataSource]:
    return loader(tmp_path)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets.utils, "_get_redirect_url", refuse)


def test_digits(load) -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data, source = load("digits"), load_digits()
    train, test = train_test_split(range(1797), test_size=0.2, stratify=source.target, random_state=0)
    for part, chosen in ((data.train, train), (data.test, test)):
        assert part.values.dtype == np.uint8 and part.values.shape == (len(chosen), 1, 8, 8)
        assert (part.values[:, 0] == source.images[chosen] * 15).all()
        assert part.labels.dtype == np.int64 and (part.labels == source.target[chosen]).all()
    assert (len(train), len(test), data.num_classes, data.size, data.in_channels) == (1437, 360, 10, 8, 1)
    scaled = data.train.values / 255
    np.testing.assert_allclose((data.mean[0], data.std[0]), (scaled.mean(), scaled.std()), rtol=1e-12)
    assert data.fingerprint() == load("digits").fingerprint()


def test_digits_of_another_size(load) -> None:
    small, large = load("digits"), load("digits", size=32)
    assert large.size == 32
    assert (large.train.values == small.train.values.repeat(4, 2).repeat(4, 3)).all()
    assert large.mean == pytest.approx(small.mean) and large.std == pytest.approx(small.std)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: int) -> None:
    written = write_cifar(tmp_path / "root", name, monkeypatch)
    data = load(name)
    for part in ("train", "test"):
        samples = getattr(data, part)
        assert samples.values.flags.c_contiguous and samples.labels.dtype == np.int64
        assert (samples.values == written[part]).all() and (samples.labels == written[f"{part}_labels"]).all()
    assert data.classes == tuple(f"class {i}" for i in range(classes))
    assert data.mean[0] == {"cifar10": 0.4914, "cifar100": 0.5071}[name] and data.size == 32
    small = load(name, size=16)
    assert small.train.values.shape == (len(data.train), 3, 16, 16)
    means = data.train.values.reshape(-1, 3, 16, 2, 16, 2).mean((3, 5))
    assert np.abs(small.train.values - means).mean() < 20 < np.abs(data.train.values[..., ::2, ::2] - means).mean()


def test_cifar_from_its_archive(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar(tmp_path / "root", "cifar10", monkeypatch)
    files = tmp_path / "root" / "cifar-10-batches-py"
    os.truncate(files / "data_batch_3", 100)
    (files / "test_batch").unlink()
    assert (load("cifar10").train.values == written["train"]).all()


def test_cifar_that_cannot_be_had(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path / "root", "cifar10", monkeypatch)
    archive = tmp_path / "root" / "cifar-10-python.tar.gz"
    os.truncate(archive, 100)
    assert len(load("cifar10").train) == 20  # the archive is not needed
    shutil.rmtree(tmp_path / "root" / "cifar-10-batches-py")
    message = (
        r"cifar10 is not in root, .*/root, and could not be downloaded: .*no network.*\. Download "
        r"https://www\.cs\.toronto\.edu/~kriz/cifar-10-python\.tar\.gz \(md5 \w{32}\) elsewhere, "
        r"put cifar-10-python\.tar\.gz into .*/root"
    )
    with pytest.raises(ValueError, match=message):
        load("cifar10")


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet(load, tmp_path: Path, packed: bool) -> None:
    root = tmp_path / "root"
    write_tiny_imagenet(root / TINY)
    if packed:
        pack(root / TINY, root / f"{TINY}.zip")
        shutil.rmtree(root / TINY)
    data = load("tiny-imagenet")
    assert data.train.values.shape == (6, 3, 64, 64) and data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.values.shape == (4, 3, 64, 64) and data.test.labels.tolist() == [0, 0, 1, 1]
    assert data.classes == ("goldfish", "ox") and data.mean == (0.485, 0.456, 0.406)
    grey = data.train.values[1]
    assert (grey == grey[:1]).all() and not (data.train.values[0] == data.train.values[0, :1]).all()
    expected = np.asarray(Image.open(root / TINY / "val" / "images" / "val_2.JPEG")).transpose(2, 0, 1)
    assert (data.test.values[1] == expected).all()
    assert not [path for path in root.iterdir() if path.name.endswith(".tmp")]
    assert load("tiny-imagenet", size=32).size == 32


@pytest.mark.parametrize("damage", ["truncated", "other content", "no archive"])
def test_tiny_imagenet_with_a_damaged_archive(load, tmp_path: Path, damage: str) -> None:
    archive = tmp_path / "root" / f"{TINY}.zip"
    archive.parent.mkdir()
    write_tiny_imagenet(tmp_path / TINY)
    pack(tmp_path / TINY / "val" if damage == "other content" else tmp_path / TINY, archive)
    if damage == "truncated":
        os.truncate(archive, archive.stat().st_size - 1000)
    if damage == "no archive":
        archive.write_text("<html>")
    with pytest.raises(ValueError, match=r"root/tiny-imagenet-200\.zip must be http://.*, delete it and start again"):
        load("tiny-imagenet")
    assert {path.name for path in archive.parent.iterdir()} == {f"{TINY}.zip", f".{TINY}.lock"}


def test_tiny_imagenet_that_cannot_be_had(load) -> None:
    with pytest.raises(ValueError, match=r"could not be downloaded: .*no network.*put tiny-imagenet-200\.zip into"):
        load("tiny-imagenet")


def remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def write(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("wnids.txt"), r"wnids\.txt is missing or cannot be read"),
        (remove("words.txt"), r"words\.txt is missing or cannot be read"),
        (remove("val/val_annotations.txt"), r"val_annotations\.txt is missing or cannot be read"),
        (write("wnids.txt", "\n"), r"wnids\.txt must not be empty"),
        (write("wnids.txt", "n01\nn02\nn03\n"), r"train/n03/images must hold the training images of n03"),
        (
            write("val/val_annotations.txt", "val_0.JPEG\tn07\t0"),
            r"val_annotations\.txt must give .* 'val_0.JPEG\\tn07",
        ),
        (remove("val/images/val_3.JPEG"), r"val_annotations\.txt must list the files in .*images, only one .* val_3"),
        (write("val/val_annotations.txt", "val_0.JPEG\tn01\n"), r"must list the files in .*, only one .* val_1"),
        (write("val/images/val_1.JPEG", "damaged"), r"images/val_1\.JPEG must be an image of 8 bits a channel"),
        (write("train/n01/images/n01_2.JPEG", ""), r"n01_2\.JPEG must be an image of 8 bits a channel"),
    ],
)
def test_tiny_imagenet_with_damaged_files(load, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    write_tiny_imagenet(tmp_path / "root" / TINY)
    damage(tmp_path / "root" / TINY)
    with pytest.raises(ValueError, match=message):
        load("tiny-imagenet")


@pytest.mark.parametrize("name", ["mnist", "", "folder:", "folder", "tonic:", "tonic", "digits:8", "CIFAR10"])
def test_unknown_names(load, name: str) -> None:
    with pytest.raises(ValueError, match=rf"data must be one of digits, cifar10, .*tonic:NAME, got {name!r}"):
        load(name)


def test_settings_that_do_not_fit(load) -> None:
    with pytest.raises(ValueError, match="nda must be False for images, it is for events, got True with data 'digits'"):
        load("digits", nda=True)
    with pytest.raises(ValueError, match="crop must be 0 or more, got -1"):
        load("digits", crop=-1)
    with pytest.raises(ValueError, match="T must be 1 or more, got 0"):
        load_data(DataSettings(), 0)
    with pytest.raises(
        ValueError, match="size must be at most 8192 pixels, got 1000000: one image would take 2,794 GiB"
    ):
        load("folder:nowhere", size=1_000_000)
    with pytest.raises(ValueError, match="size must be at most 512 for digits, got 8192: they would take 112 GiB"):
        load("digits", size=8192)


def test_events_go_to_their_own_loader(load, monkeypatch: pytest.MonkeyPatch) -> None:
    events = ModuleType("stdano.data.events")
    events.load_events = lambda settings, T, encoding: (settings.data, settings.frames, T)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stdano.data.events", events)
    for name in ("digits-events", "nmnist", "dvs-cifar10", "dvs-gesture", "tonic:NCALTECH101"):
        assert load(name, frames="time", nda=True) == (name, "time", 4)


def test_every_data_set_is_described() -> None:
    assert all("\n" not in text and len(text) < 90 for text in DATASETS.values())
