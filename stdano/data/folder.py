"""Any folder of images: one subfolder a class."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..settings import DataSettings
from .files import check_disjoint, contents
from .images import decoded
from .layout import kinds, meant, part_of, parts_of
from .source import DataSource, Encoding, Samples

Listing = tuple[list[Path], np.ndarray]
"""files, and the label of each"""


def load_folder(settings: DataSettings, path: Path, encoding: Encoding | None = None) -> DataSource:
    """Images in ``path/train/CLASS`` and ``path/test/CLASS``.

    The parts may also be called ``training``, ``testing`` and, where there is no test, ``val``, ``valid`` or
    ``validation``, in any case, with or without "set" at the end. Without any of these, classes are the subfolders of
    ``path`` itself, and of each class a fifth of the images, at least one, is for the test: those that come first in a
    fixed random permutation of the sorted names.

    Classes are sorted by name; their images may lie in folders of folders. Hidden files and folders and those that
    systems make, such as ``.ipynb_checkpoints`` and ``__MACOSX``, are left out, and so are links that lead back. Mean
    and standard deviation are those of the training images. See :func:`decoded` for ``size`` and for what becomes of
    grey images.

    Args:
        settings: ``size`` and ``cache`` count.
        path: the folder.
        encoding: of a trained network. The training part is not read then, and need not be there; the samples still
            have to be encoded.

    Raises:
        ValueError: ``path`` has not this layout: says which folder was probably meant. Training and test have different
            classes or the same files, or an image cannot be read.
    """
    if not path.is_dir():
        raise ValueError(f"data must be folder:PATH with a folder of images, there is no folder {path}")
    name, parts = f"folder:{path}", parts_of(path)
    if not parts:
        classes, (files, labels) = _listing(path, path)
        _warn_of_a_part(path, encoding)
        train, test = _split(files, labels, classes)
        return source(name, None if encoding else train, test, classes, path, settings)
    of_train, of_test = parts.get("train"), parts.get("test") or parts.get("validation")
    if of_test is None or (of_train is None and encoding is None):
        needed, there = "test or val" if of_test is None else "train", ", ".join(place.name for place in parts.values())
        raise ValueError(f"{path} must have {needed} beside {there}, each with a folder a class{meant(path)}")
    test_classes, test = _listing(of_test, path)
    if of_train is None or encoding is not None:
        return source(name, None, test, test_classes, path, settings)
    classes, train = _listing(of_train, path)
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise ValueError(f"{of_train} and {of_test} must have the same classes, only one has {odd}")
    return source(name, train, test, classes, path, settings)


def source(
    name: str, train: Listing | None, test: Listing, classes: tuple[str, ...], root: Path, settings: DataSettings
) -> DataSource:
    """The images of two lists of files below ``root``, normalised by the training images; or of the test alone, not
    normalised."""

    def part(kind: str, listing: Listing) -> tuple[Samples, dict[str, Any]]:
        key = {"data": name.split(":")[0], "root": str(root.resolve()), "part": kind}
        values, about = decoded(listing[0], root, settings.size, settings.cache, key)
        return Samples(values, listing[1]), about

    if train is None:
        of_test, _ = part("test", test)
        channels = of_test.values.shape[1]
        return DataSource(name, of_test.none(), of_test, classes, (0.0,) * channels, (1.0,) * channels)
    check_disjoint(train[0], test[0])
    of_train, about = part("train", train)
    of_test, _ = part("test", test)
    if of_train.values.shape[1:] != of_test.values.shape[1:]:
        sizes = f"{train[0][0]} is {of_train.values.shape[-1]} pixels wide, {test[0][0]} {of_test.values.shape[-1]}"
        raise ValueError(f"size must be given where images differ in size: {sizes}")
    return DataSource(name, of_train, of_test, classes, tuple(about["mean"]), tuple(about["std"]))


def _listing(folder: Path, path: Path) -> tuple[tuple[str, ...], Listing]:
    """Classes and images of a folder that is a part of ``path``, or ``path`` itself."""
    try:
        found = {place.name: images_below(place, path) for place in contents(folder)[0]}
        below = {name: contents(folder / name)[0] for name in found}
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error}") from error
    parts = [name for name in found if part_of(name)]
    holding = [name for name, folders in below.items() if any(part_of(place.name) for place in folders)]
    # A class may be called like a part, as the vehicle; then it holds images, and not all classes are.
    if parts and (len(parts) == len(found) or any(below[name] for name in parts)):
        raise ValueError(f"{folder} must hold classes, not parts, it has {', '.join(parts)}{meant(path)}")
    if holding:
        inner = ", ".join(place.name for place in below[holding[0]])
        raise ValueError(f"{folder} must hold classes, its folder {holding[0]} holds parts, {inner}{meant(path)}")
    if len(found) < 2:
        has = f"only {next(iter(found))}" if found else "none"
        raise ValueError(f"{folder} must have one folder of images a class, two or more, it has {has}{meant(path)}")
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise ValueError(
            f"{folder} must have one folder of images a class: there are no images ({', '.join(_extensions())}) in "
            f"{', '.join(empty)}"
        )
    labels = [label for label, files in enumerate(found.values()) for _ in files]
    return tuple(found), ([file for files in found.values() for file in files], np.array(labels, dtype=np.int64))


def images_below(folder: Path, path: Path) -> list[Path]:
    """The images in a folder and in those that it holds, by folder and name. None that has been seen by another link is
    entered again, nor ``path``, nor what that lies in.

    Raises:
        OSError: a folder cannot be read.
    """
    extensions = _extensions()
    seen = {os.path.realpath(place) for place in (path, *path.absolute().parents)}
    found, pending = [], [folder]
    while pending:
        place = pending.pop()
        real = os.path.realpath(place)
        if real not in seen:
            seen.add(real)
            folders, files = contents(place)
            found.append((str(place), [file for file in files if file.name.lower().endswith(extensions)]))
            pending += reversed(folders)
    return [file for _, files in sorted(found) for file in files]


def _extensions() -> tuple[str, ...]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return IMG_EXTENSIONS


def _warn_of_a_part(path: Path, encoding: Encoding | None) -> None:
    """Where a part was given, a fifth of it would silently be the test."""
    whole = path.absolute().parent
    kind = part_of(path.absolute().name)
    if kind and (kinds(whole) - {kind} or (encoding is not None and kind != "train")):
        warnings.warn(
            f"of folder:{path} a fifth of the images is the test; folder:{whole} takes {path.name} as the part it is",
            RuntimeWarning,
            stacklevel=2,
        )


def _split(files: list[Path], labels: np.ndarray, classes: tuple[str, ...]) -> tuple[Listing, Listing]:
    generator = np.random.RandomState(0)  # whose numbers no version of NumPy will change
    is_test = np.zeros(len(files), dtype=bool)
    for label, name in enumerate(classes):
        (members,) = np.nonzero(labels == label)
        if len(members) < 2:
            raise ValueError(f"each class must have 2 images or more, one for the test, {name} has {len(members)}")
        is_test[generator.permutation(members)[: max(1, round(len(members) / 5))]] = True
    train, test = (([files[i] for i in np.nonzero(part)[0]], labels[part]) for part in (~is_test, is_test))
    return train, test
