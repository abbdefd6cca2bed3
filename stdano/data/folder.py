"""Any folder of images: one subfolder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..settings import DataSettings
from .images import decoded
from .source import DataSource, Samples

Listing = tuple[list[Path], np.ndarray]
"""files, and the label of each"""


def load_folder(settings: DataSettings, path: Path) -> DataSource:
    """Images in ``path/train/CLASS`` and ``path/test/CLASS`` (or ``val`` where there is no ``test``).

    Without these, classes are the subfolders of ``path`` itself, and of each class a fifth of the images, at least
    one, is for the test: those that come first in a fixed random permutation of the sorted names.

    Classes are sorted by name. Mean and standard deviation are those of the training images. See :func:`decoded` for
    ``size`` and for what becomes of grey images.

    Raises:
        ValueError: ``path`` has not this layout, training and test have different classes, or an image cannot be read.
    """
    if not path.is_dir():
        raise ValueError(f"data must be folder:PATH with a folder of images, there is no folder {path}")
    test_folder = next((path / name for name in ("test", "val") if (path / name).is_dir()), None)
    if (path / "train").is_dir():
        if test_folder is None:
            raise ValueError(f"{path} must have test or val beside train, each with a folder a class")
        (classes, train), (test_classes, test) = _listing(path / "train"), _listing(test_folder)
        if classes != test_classes:
            odd = sorted(set(classes) ^ set(test_classes))
            raise ValueError(f"{path / 'train'} and {test_folder} must have the same classes, only one has {odd}")
    elif test_folder is not None:
        raise ValueError(f"{path} must have train beside {test_folder.name}, each with a folder a class")
    else:
        classes, (files, labels) = _listing(path)
        train, test = _split(files, labels, classes)
    return source(f"folder:{path}", train, test, classes, path, settings)


def source(
    name: str, train: Listing, test: Listing, classes: tuple[str, ...], root: Path, settings: DataSettings
) -> DataSource:
    """The images of two lists of files below ``root``, normalised by the training images."""
    parts = []
    for part, (files, labels) in (("train", train), ("test", test)):
        key = {"data": name.split(":")[0], "root": str(root.resolve()), "part": part}
        parts.append((decoded(files, root, settings.size, settings.cache, key), labels))
    ((values, about), labels), ((test_values, _), test_labels) = parts
    if values.shape[1:] != test_values.shape[1:]:
        sizes = f"{train[0][0]} is {values.shape[-1]} pixels wide, {test[0][0]} {test_values.shape[-1]}"
        raise ValueError(f"size must be given where images differ in size: {sizes}")
    statistics = tuple(about["mean"]), tuple(about["std"])
    return DataSource(name, Samples(values, labels), Samples(test_values, test_labels), classes, *statistics)


def _listing(folder: Path) -> tuple[tuple[str, ...], Listing]:
    from torchvision.datasets import ImageFolder

    try:
        images = ImageFolder(folder)
    except OSError as error:
        raise ValueError(f"{folder} must have one folder of images a class: {error}") from error
    return tuple(images.classes), ([Path(file) for file, _ in images.samples], np.array(images.targets, dtype=np.int64))


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
