"""Folders of images: which are for what, how they are decoded, and what is said where they cannot be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import loader, pattern, write_image
from PIL import Image

from stdano.data import DataSource, images

SUBSET = Path(__file__).parents[2] / "shared" / "data" / "cifar10-subset"


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., DataSource]:
    return loader(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train and test with two classes of three and one images of 6 x 6 pixels."""
    for part, count in (("train", 3), ("test", 1)):
        for label, name in enumerate(("cat", "dog")):
            for index in range(count):
                values = pattern(6, 6, 3, seed=10 * label + index + 5 * (part == "test"))
                write_image(tmp_path / "images" / part / name / f"{index}.png", values)
    return tmp_path / "images"


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


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}
"""How a viewer turns what is stored, by EXIF's orientation: where row 0 and column 0 lie."""


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg"])
def test_images_are_turned_as_exif_says(load, folder: Path, suffix: str) -> None:
    stored = np.kron(pattern(3, 3, 3), np.ones((8, 8, 1), np.uint8))
    shutil.rmtree(folder / "train" / "cat")
    (folder / "train" / "cat").mkdir()
    for orientation in UPRIGHT:
        exif = Image.Exif()
        exif[0x0112] = orientation
        more = {"quality": 95} if suffix == "jpg" else {}
        Image.fromarray(stored).save(folder / "train" / "cat" / f"{orientation}.{suffix}", exif=exif, **more)
    values = load(f"folder:{folder}", size=24).train.values
    for index, turned in enumerate(UPRIGHT.values()):
        apart = np.abs(values[index].transpose(1, 2, 0).astype(int) - turned(stored))
        assert apart.mean() < (40 if suffix == "jpg" else 1e-9)
    assert not (values[0] == values[5]).all()


def test_damaged_exif_turns_nothing(load, folder: Path) -> None:
    values = pattern(6, 6, 3)
    for index, exif in enumerate((b"Exif\0\0not EXIF at all", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0")):
        Image.fromarray(values).save(folder / "train" / "cat" / f"{index}.png", exif=exif)
    assert (load(f"folder:{folder}").train.values[:3] == values.transpose(2, 0, 1)).all()


def test_images_that_older_versions_decoded_are_not_used(load, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert images.VERSION > 1
    load(f"folder:{folder}")
    monkeypatch.setattr(images, "VERSION", 1)
    monkeypatch.setattr(images, "_read", lambda file, size: np.zeros((3, 6, 6), np.uint8))
    assert load(f"folder:{folder}").train.values.max() == 0


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
