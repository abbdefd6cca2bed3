"""Tiny-ImageNet: 200 classes, 64 x 64 pixels, 100,000 images for training and 10,000 for validation."""

from __future__ import annotations

import dataclasses
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np

from ..settings import DataSettings
from .files import DOWNLOAD_ERRORS, expanded, listed, locked, not_downloaded
from .folder import Listing, source
from .source import DataSource

URL, MD5 = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"
NAME = "tiny-imagenet-200"


def load_tiny_imagenet(settings: DataSettings) -> DataSource:
    """Tiny-ImageNet from ``root/tiny-imagenet-200``, or else from ``root/tiny-imagenet-200.zip``, which is unpacked
    beside it, or else downloaded.

    The test part is the validation part: labels of the test images were never published. Classes are sorted by their
    WordNet number and named by their first word; normalised as ImageNet usually is.

    Raises:
        ValueError: a file is missing or damaged, or the download failed; says what to do.
    """
    root = expanded(settings.root, "root")
    folder = root / NAME
    if not folder.is_dir():
        _provide(root)
    ids = sorted(_lines(folder / "wnids.txt"))
    words = dict(line.split("\t", 1) for line in _lines(folder / "words.txt") if "\t" in line)
    classes = tuple(words.get(number, number).split(",")[0].strip() for number in ids)
    data = source("tiny-imagenet", _train(folder, ids), _validation(folder, ids), classes, folder, settings)
    return dataclasses.replace(data, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def _train(folder: Path, ids: list[str]) -> Listing:
    files, labels = [], []
    for label, number in enumerate(ids):
        images = listed(folder / "train" / number / "images", "*.JPEG")
        if not images:
            raise ValueError(f"{folder / 'train' / number / 'images'} must hold the training images of {number}")
        files += images
        labels += [label] * len(images)
    return files, np.array(labels, dtype=np.int64)


def _validation(folder: Path, ids: list[str]) -> Listing:
    annotations, label = folder / "val" / "val_annotations.txt", {number: i for i, number in enumerate(ids)}
    names, labels = [], []
    for line in _lines(annotations):
        name, number, *_ = (line + "\t").split("\t")
        if number not in label:
            raise ValueError(f"{annotations} must give each image a class of wnids.txt, got the line {line!r}")
        names.append(name)
        labels.append(label[number])
    images = folder / "val" / "images"
    odd = sorted({file.name for file in listed(images, "*.JPEG")} ^ set(names))
    if odd:
        raise ValueError(f"{annotations} must list the files in {images}, only one of them has {odd[0]}")
    return [images / name for name in names], np.array(labels, dtype=np.int64)


def _lines(file: Path) -> list[str]:
    try:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is missing or cannot be read: {error}") from error
    if not lines:
        raise ValueError(f"{file} must not be empty")
    return lines


def _provide(root: Path) -> None:
    """Makes the folder: unpacks the archive, which is downloaded where it is not there either."""
    from torchvision.datasets.utils import download_url

    archive, partial = root / f"{NAME}.zip", root / f".{NAME}.zip.tmp"
    try:
        with locked(root / f".{NAME}.lock"):
            if not archive.exists() and not (root / NAME).is_dir():
                partial.unlink(missing_ok=True)  # of a process that was killed
                try:
                    download_url(URL, root, partial.name, MD5)
                    os.replace(partial, archive)
                finally:
                    partial.unlink(missing_ok=True)
            if not (root / NAME).is_dir():
                _unpack(archive)
    except DOWNLOAD_ERRORS as error:
        raise not_downloaded("tiny-imagenet", root, URL, MD5, error) from error


def _unpack(archive: Path) -> None:
    temporary = archive.parent / f".{NAME}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(temporary)
        if not (temporary / NAME / "wnids.txt").is_file():
            raise zipfile.BadZipFile(f"it has no {NAME}/wnids.txt")
        os.replace(temporary / NAME, archive.parent / NAME)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive} must be {URL} (md5 {MD5}), delete it and start again: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
