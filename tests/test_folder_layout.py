"""Which folders of a folder of images are its parts and its classes, and what is said where they are a level off."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from image_files import loader, pattern, write_image

from stdano.data import DataSource
from stdano.data.layout import part_of


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | str], DataSource]:
    monkeypatch.chdir(tmp_path)
    load = loader(tmp_path)
    return lambda path: load(f"folder:{path}")


def write_classes(folder: Path, count: int = 2, names: tuple[str, ...] = ("cat", "dog"), seed: int = 0) -> None:
    for label, name in enumerate(names):
        for index in range(count):
            write_image(folder / name / f"{index}.png", pattern(4, 4, 3, seed=seed + 100 * label + index))


def write_parts(folder: Path, train: str = "train", test: str = "test") -> Path:
    write_classes(folder / train, 3)
    write_classes(folder / test, 1, seed=50)
    return folder


def sizes(data: DataSource) -> tuple[tuple[str, ...], int, int]:
    return data.classes, len(data.train), len(data.test)


WHOLE = ("cat", "dog"), 6, 2


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("training", "testing"),
        ("training_set", "test_set"),
        ("trainset", "validation"),
        ("Training", "Valid"),
    ],
)
def test_names_of_parts(load, tmp_path: Path, train: str, test: str) -> None:
    assert sizes(load(write_parts(tmp_path / "images", train, test))) == WHOLE


def test_other_names_are_no_parts() -> None:
    assert {part_of(name) for name in ("trains", "tests", "value", "invalid", "set", "retrain", "train1")} == {None}


def test_the_test_comes_before_the_validation(load, tmp_path: Path) -> None:
    write_classes(write_parts(tmp_path / "images") / "validation", 2, seed=70)
    assert sizes(load("images")) == WHOLE


def test_two_folders_for_one_part(load, tmp_path: Path) -> None:
    write_classes(write_parts(tmp_path / "images") / "Training", 2)
    with pytest.raises(ValueError, match="images must have one folder for each part, got Training and train"):
        load("images")


@pytest.mark.parametrize(
    ("made", "given", "message", "meant"),
    [
        (
            "images/unzipped",
            "images",
            "must hold classes, its folder unzipped holds parts, test, train",
            "images/unzipped",
        ),
        ("images/a/b", "images", "two or more, it has only a", "images/a/b"),
        (
            "images",
            "images/train/cat",
            "cat must have one folder of images a class, two or more, it has none",
            "images",
        ),
    ],
)
def test_parts_on_another_level(load, tmp_path: Path, made: str, given: str, message: str, meant: str) -> None:
    write_parts(tmp_path / made)
    with pytest.raises(ValueError, match=message) as error:
        load(given)
    assert str(error.value).endswith(f"; folder:{meant} is probably meant")
    with pytest.raises(ValueError) as error:
        load(tmp_path / given)
    assert str(error.value).endswith(f"; folder:{tmp_path / meant} is probably meant")
    assert sizes(load(meant)) == WHOLE


def test_classes_on_another_level(load, tmp_path: Path) -> None:
    write_classes(tmp_path / "images" / "all", 5)
    for given in ("images", "images/all/dog"):
        with pytest.raises(
            ValueError, match="images a class, two or more, it has .*; folder:images/all is probably meant"
        ):
            load(given)
    assert sizes(load("images/all")) == (("cat", "dog"), 8, 2)


def test_one_class(load, tmp_path: Path) -> None:
    write_classes(tmp_path / "images", 5, ("cat",))
    with pytest.raises(ValueError, match=r"images must have one folder .* a class, two or more, it has only cat$"):
        load("images")


def test_parts_in_parts(load, tmp_path: Path) -> None:
    write_parts(tmp_path / "images" / "train")
    write_classes(tmp_path / "images" / "test", 1)
    with pytest.raises(
        ValueError, match=r"images/train must hold classes, not parts, it has test, train; folder:images/train is prob"
    ):
        load("images")
    shutil.rmtree(tmp_path / "images" / "test")
    with pytest.raises(
        ValueError, match="must have test or val beside .*train.*; folder:images/train is probably meant"
    ):
        load("images")


def test_classes_that_hold_parts(load, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_classes(tmp_path / "images" / name, 1, ("train", "test"))
    with pytest.raises(ValueError, match=r"images must hold classes, its folder cat holds parts, test, train"):
        load("images")


def test_a_class_may_be_called_train(load, tmp_path: Path) -> None:
    """As in CIFAR-100."""
    for part, seed in (("train", 0), ("test", 50)):
        write_classes(tmp_path / "images" / part, 2, ("bus", "train", "tram"), seed)
    assert load("images").classes == ("bus", "train", "tram")


def test_a_part_alone_is_split_with_a_warning(load, tmp_path: Path) -> None:
    write_parts(tmp_path / "images")
    with pytest.warns(
        RuntimeWarning, match="a fifth of the images is the test; folder:.*/images takes train as the part"
    ):
        assert sizes(load("images/train")) == (("cat", "dog"), 4, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shutil.rmtree(tmp_path / "images" / "test")
        load("images/train")


def test_what_systems_make_is_no_class(load, tmp_path: Path) -> None:
    write_parts(tmp_path / "images")
    before = load("images")
    for part in ("train", "test"):
        place = tmp_path / "images" / part
        write_classes(place, 2, (".ipynb_checkpoints", "__MACOSX", "@eaDir", "cat/.ipynb_checkpoints"), seed=90)
        (place / "dog" / "._0.png").write_bytes(b"Mac OS X")
        (place / "dog" / "Thumbs.db").touch()
    write_classes(tmp_path / "images" / "__MACOSX" / "train")
    after = load("images")
    assert after.classes == before.classes and after.fingerprint() == before.fingerprint()


def test_order_of_nested_folders_is_that_of_their_names(load, tmp_path: Path) -> None:
    """For ever, or splits could not be compared: the same that torchvision's ImageFolder has."""
    names = ("b/0", "b-c/0", "b/c/0", "a", "z", "b/a")
    for part, level in (("train", 0), ("test", 100)):
        for name in names:
            for label, kind in enumerate(("cat", "dog")):
                values = np.full((4, 4, 3), level + 50 * label + names.index(name), np.uint8)
                write_image(tmp_path / "images" / part / kind / f"{name}.png", values)
    assert load("images").train.values[:6, 0, 0, 0].tolist() == [3, 4, 0, 5, 1, 2]


def test_links_that_lead_back_end(load, tmp_path: Path) -> None:
    images = write_parts(tmp_path / "images")
    before = load("images").fingerprint()
    (images / "train" / "loop").symlink_to(".")
    (images / "train" / "cat" / "up").symlink_to(images)
    (images / "train" / "dog" / "self").symlink_to("self")
    (images / "train" / "dog" / "again").symlink_to(images / "train" / "dog")
    assert load("images").fingerprint() == before
    shutil.move(images / "train" / "dog", tmp_path / "elsewhere")
    (images / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    assert load("images").fingerprint() == before  # other links are followed
    os.mkdir(tmp_path / "more")
    write_image(tmp_path / "more" / "x.png", pattern(4, 4, 3, seed=99))
    for name in ("one", "two"):
        (images / "train" / "cat" / name).symlink_to(tmp_path / "more")
    assert len(load("images").train) == 7  # once, though two links lead there


def test_the_same_files_for_both_parts(load, tmp_path: Path) -> None:
    images = write_parts(tmp_path / "images")
    os.link(images / "train" / "cat" / "0.png", images / "test" / "cat" / "9.png")
    with pytest.warns(RuntimeWarning, match=r"1 of 3 test files are .*test/cat/9\.png, which is .*train/cat/0\.png"):
        load("images")
    shutil.rmtree(images / "test")
    (images / "test").symlink_to("train")
    with pytest.raises(
        ValueError, match=r"not for training, 6 of 6 test files are .*test/cat/0\.png, which is .*train/cat/0"
    ):
        load("images")


def test_a_folder_that_cannot_be_read(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images would be left out in silence."""
    write_parts(tmp_path / "images")
    scan = os.scandir

    def refuse(folder: Path) -> Iterator[os.DirEntry]:
        if str(folder).endswith("train/cat"):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"train/cat cannot be read"):
        load("images")
