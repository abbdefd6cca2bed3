"""Image data sets in their published layouts: what is read, what is kept, and what is said where it cannot be."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets.utils
from image_files import TINY, pack, pattern, write_cifar, write_image, write_tiny_imagenet
from PIL import Image

from stdano.data import DATASETS, DataSource, images, load_data
from stdano.settings import DataSettings

SUBSET = Path(__file__).parents[2] / "shared" / "data" / "cifar10-subset"


@pytest.fixture
def load(tmp_path: Path):
    def load(data: str, **settings: Any) -> DataSource:
        return load_data(DataSettings(data, str(tmp_path / "root"), str(tmp_path / "cache"), **settings), 4)

    return load


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets.utils, "_get_redirect_url", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train and test with two classes of three and one images of 6 x 6 pixels."""
    for part, count in (("train", 3), ("test", 1)):
        for label, name in enumerate(("cat", "dog")):
            for index in range(count):
                values = pattern(6, 6, 3, seed=10 * label + index + 5 * (part == "test"))
                write_image(tmp_path / "images" / part / name / f"{index}.png", values)
    return tmp_path / "images"


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


def test_folder(load, folder: Path) -> None:
    data = load(f"folder:{folder}")
    assert data.name == f"folder:{folder}" and data.classes == ("cat", "dog") and data.size == 6
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and data.test.labels.tolist() == [0, 1]
    for label, name in enumerate(data.classes):
        for index in range(3):
            expected = np.asarray(Image.open(folder / "train" / name / f"{index}.png")).transpose(2, 0, 1)
            assert (data.train.values[3 * label + index] == expected).all()
    scaled = data.train.values / 255
    np.testing.assert_allclose(data.mean, scaled.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, scaled.std((0, 2, 3)), rtol=1e-12)


def test_folder_is_decoded_once(load, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(f"folder:{folder}").fingerprint()
    read, decode = [], images._read
    monkeypatch.setattr(images, "_read", lambda file, size: read.append(file.name) or decode(file, size))
    assert load(f"folder:{folder}").fingerprint() == first
    assert read == ["0.png"] * 2  # of each part, for its size
    write_image(folder / "train" / "dog" / "1.png", pattern(6, 6, 3, seed=77))
    assert load(f"folder:{folder}").fingerprint() != first
    assert len(read) == 2 + 1 + 6 + 1


def test_folder_with_val(load, folder: Path) -> None:
    expected = load(f"folder:{folder}")
    (folder / "test").rename(folder / "val")
    assert load(f"folder:{folder}").fingerprint() == expected.fingerprint()


def test_folder_without_parts(load, tmp_path: Path) -> None:
    for label, (name, count) in enumerate((("a", 10), ("b", 2), ("c", 13))):
        for index in range(count):
            write_image(tmp_path / "all" / name / f"{index:02}.png", np.full((4, 4, 3), 20 * label + index, np.uint8))
    data = load(f"folder:{tmp_path / 'all'}")
    assert np.bincount(data.train.labels).tolist() == [8, 1, 10] and np.bincount(data.test.labels).tolist() == [2, 1, 3]
    train, test = (part.values[:, 0, 0, 0].tolist() for part in (data.train, data.test))
    assert sorted(train + test) == [*range(10), 20, 21, *range(40, 53)]
    assert test == [2, 8, 21, 42, 43, 45]  # for ever, or results could not be compared
    (tmp_path / "all" / "b" / "00.png").unlink()
    with pytest.raises(ValueError, match="each class must have 2 images or more, one for the test, b has 1"):
        load(f"folder:{tmp_path / 'all'}")


def test_sizes(load, folder: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    write_image(folder / "train" / "dog" / "1.png", wide)
    with pytest.raises(
        ValueError, match=r"size must be given where .* differ in size: .*0\.png is 6 x 6 .*1\.png 10 x 30"
    ):
        load(f"folder:{folder}")
    data = load(f"folder:{folder}", size=5)
    assert (
        data.size == 5 and (data.train.values[4, :, :, 1:4] == 200).all()
    )  # the shorter side is resized, the centre kept
    write_image(folder / "train" / "cat" / "0.png", wide)
    with pytest.raises(ValueError, match=r"size must be given where images are not square: .*cat/0\.png is 10 x 30"):
        load(f"folder:{folder}")


def test_sizes_of_the_parts_differ(load, folder: Path) -> None:
    for name in ("cat", "dog"):
        write_image(folder / "test" / name / "0.png", pattern(8, 8, 3))
    with pytest.raises(ValueError, match=r"size must be given .*train/cat/0\.png is 6 pixels wide, .*0\.png 8"):
        load(f"folder:{folder}")


def test_kinds_of_images(load, folder: Path) -> None:
    grey = pattern(6, 6)
    write_image(folder / "train" / "cat" / "0.png", grey)
    write_image(folder / "train" / "cat" / "1.png", np.dstack([pattern(6, 6, 3), np.zeros((6, 6), np.uint8)]))
    Image.fromarray(grey).convert("P").save(folder / "train" / "cat" / "2.png")
    data = load(f"folder:{folder}")
    assert (data.train.values[0] == grey).all() and (data.train.values[1].transpose(1, 2, 0) == pattern(6, 6, 3)).all()
    assert (data.train.values[2] == grey).all()
    Image.fromarray(np.full((6, 6), 3000, np.uint16)).save(folder / "train" / "cat" / "2.png")
    with pytest.raises(ValueError, match=r"cat/2\.png must be an image of 8 bits a channel: more than 8 bits a pixel"):
        load(f"folder:{folder}")


def test_damaged_images_leave_nothing_behind(load, folder: Path, tmp_path: Path) -> None:
    damaged = folder / "train" / "dog" / "2.png"
    os.truncate(damaged, damaged.stat().st_size - 30)
    with pytest.raises(ValueError, match=r"dog/2\.png must be an image of 8 bits a channel"):
        load(f"folder:{folder}")
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} == {".lock"}


def test_folders_of_another_layout(load, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"data must be folder:PATH with a folder of images, there is no folder .*/none"
    ):
        load(f"folder:{tmp_path / 'none'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty must have one folder of images a class"):
        load(f"folder:{tmp_path / 'empty'}")
    (folder / "test" / "bird").mkdir()
    with pytest.raises(ValueError, match=r"test must have one folder of images a class: .*bird"):
        load(f"folder:{folder}")
    write_image(folder / "test" / "bird" / "0.png", pattern(6, 6, 3))
    with pytest.raises(ValueError, match=r"train and .*test must have the same classes, only one has \['bird'\]"):
        load(f"folder:{folder}")
    (folder / "test").rename(tmp_path / "test")
    with pytest.raises(ValueError, match=r"images must have test or val beside train"):
        load(f"folder:{folder}")
    (tmp_path / "test").rename(folder / "val")
    (folder / "train").rename(tmp_path / "train")
    with pytest.raises(ValueError, match=r"images must have train beside val"):
        load(f"folder:{folder}")


def test_constant_channels_have_deviation_one() -> None:
    values = np.zeros((3, 2, 4, 4), np.uint8)
    values[:, 1] = 255
    assert images.channel_statistics(values) == ((0.0, 1.0), (1.0, 1.0))


@pytest.mark.skipif(not SUBSET.is_dir(), reason="needs real images, ../shared/data/cifar10-subset")
def test_real_images(load) -> None:
    data = load(f"folder:{SUBSET}")
    assert data.train.values.shape == (5000, 3, 32, 32) and data.test.values.shape == (1000, 3, 32, 32)
    assert (np.bincount(data.train.labels) == 500).all() and (np.bincount(data.test.labels) == 100).all()
    assert data.classes[0] == "airplane" and len(data.classes) == 10
    np.testing.assert_allclose(data.mean, (0.4914, 0.4822, 0.4465), atol=0.003)
    np.testing.assert_allclose(data.std, (0.245, 0.243, 0.261), atol=0.006)


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


def test_events_go_to_their_own_loader(load, monkeypatch: pytest.MonkeyPatch) -> None:
    events = ModuleType("stdano.data.events")
    events.load_events = lambda settings, T: (settings.data, settings.frames, T)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stdano.data.events", events)
    for name in ("digits-events", "nmnist", "dvs-cifar10", "dvs-gesture", "tonic:NCALTECH101"):
        assert load(name, frames="time", nda=True) == (name, "time", 4)


def test_every_data_set_is_described() -> None:
    assert all("\n" not in text and len(text) < 90 for text in DATASETS.values())
