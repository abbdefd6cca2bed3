"""CIFAR-10 and CIFAR-100: 32 x 32 pixels, 50,000 images for training and 10,000 for the test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..settings import DataSettings
from .cache import cached
from .files import DOWNLOAD_ERRORS, expanded, locked, not_downloaded
from .source import DataSource, Samples

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""mean and standard deviation of the training images"""


def load_cifar(settings: DataSettings) -> DataSource:
    """CIFAR-10 or CIFAR-100 from ``root``, into which it is downloaded where it is not there; torchvision reads it and
    checks its md5 sums. With another ``size`` than 32 images are resized once (bilinear, antialiased) and cached.

    Raises:
        ValueError: the data set is missing or damaged and the download failed; says what to do.
    """
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[settings.data]
    root = expanded(settings.root, "root")
    try:
        sets = [kind(root, train) for train in (True, False)]
    except RuntimeError:  # not there, or damaged
        sets = _downloaded(kind, root, settings.data)
    train, test = (
        Samples(_values(part, name, settings), np.array(part.targets, dtype=np.int64))
        for part, name in zip(sets, ("train", "test"), strict=True)
    )
    return DataSource(settings.data, train, test, tuple(sets[0].classes), *_STATISTICS[settings.data])


def _downloaded(kind: type[CIFAR10], root: Path, name: str) -> list[CIFAR10]:
    try:
        with locked(root / f".{name}.lock"):
            return [kind(root, train, download=True) for train in (True, False)]
    except DOWNLOAD_ERRORS as error:
        raise not_downloaded(name, root, kind.url, kind.tgz_md5, error) from error


def _values(part: CIFAR10, name: str, settings: DataSettings) -> np.ndarray:
    values = part.data.transpose(0, 3, 1, 2)
    if settings.size in (0, values.shape[-1]):
        return np.ascontiguousarray(values)

    def fill(target: np.ndarray) -> dict[str, Any]:
        import torch
        from torchvision.transforms.v2 import functional

        some = max(1, 1000 * 64**2 // settings.size**2)  # not too much memory at once
        for begin in range(0, len(values), some):
            images = torch.from_numpy(values[begin : begin + some])
            target[begin : begin + some] = functional.resize(images, [settings.size] * 2).numpy()
        return {}

    key = {"data": settings.data, "part": name, "size": settings.size, "version": 1}
    return cached(settings.cache, key, (*values.shape[:2], settings.size, settings.size), fill)[0]
