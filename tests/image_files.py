"""Small data sets in the layouts in which the real ones are published."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from stdano.data import DataSource, load_data
from stdano.settings import DataSettings

TINY = "tiny-imagenet-200"


def pattern(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_image(file: Path, values: np.ndarray) -> None:
    """``[H, W, 3]``, or ``[H, W]`` for a grey one; the name says the format."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)


def write_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The pickled files of CIFAR-10 or CIFAR-100 with few images, and their archive; torchvision takes their md5 sums
    for the real ones. Returns the values and labels of both parts."""
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    written: dict[str, list] = {"train": [], "test": [], "train_labels": [], "test_labels": []}

    def write(file: str, content: dict) -> str:
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    for part, listed in (("train", kind.train_list), ("test", kind.test_list)):
        sums = []
        for file, _ in listed:
            values, labels = pattern(4, 3072, seed=len(written[part]) + (part == "test")), [3, 1, 0, len(written[part])]
            key = "labels" if name == "cifar10" else "fine_labels"
            extra = {} if name == "cifar10" else {"coarse_labels": [0] * 4}
            sums.append([file, write(file, {"data": values, key: labels, "filenames": ["x.png"] * 4, **extra})])
            written[part].append(values.reshape(4, 3, 32, 32))
            written[f"{part}_labels"] += labels
        monkeypatch.setattr(kind, f"{part}_list", sums)
    meta = {kind.meta["key"]: [f"class {i}" for i in range(10 if name == "cifar10" else 100)]}
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": write(kind.meta["filename"], meta)})
    with tarfile.open(root / kind.filename, "w:gz") as archive:
        archive.add(folder, kind.base_folder)
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5((root / kind.filename).read_bytes()).hexdigest())
    stacked = {part: np.concatenate(written[part]) for part in ("train", "test")}
    return {**stacked, **{part: np.array(written[part]) for part in ("train_labels", "test_labels")}}


def write_tiny_imagenet(folder: Path) -> None:
    """Two classes with three training images and two validation images each, one of them grey."""
    folder.mkdir(parents=True)
    (folder / "wnids.txt").write_text("n02\nn01\n")
    (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tox\nn03\tnot used\n")
    annotations = ""
    for label, number in enumerate(("n01", "n02")):
        for index in range(3):
            values = pattern(64, 64) if (label, index) == (0, 1) else pattern(64, 64, 3, seed=label)
            write_image(folder / "train" / number / "images" / f"{number}_{index}.JPEG", values)
        for index in (label, label + 2):
            write_image(folder / "val" / "images" / f"val_{index}.JPEG", pattern(64, 64, 3, seed=index))
            annotations += f"val_{index}.JPEG\t{number}\t0\t32\t44\t62\n"
    (folder / "val" / "val_annotations.txt").write_text(annotations)


def pack(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, Path(folder.name) / path.relative_to(folder))


def loader(folder: Path) -> Callable[..., DataSource]:
    """load_data by name and settings, with root and cache in a folder."""

    def load(data: str, **settings: Any) -> DataSource:
        return load_data(DataSettings(data, str(folder / "root"), str(folder / "cache"), **settings), 4)

    return load
