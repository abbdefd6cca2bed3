"""Data sets, their augmentation, and batches of them."""

from __future__ import annotations

from pathlib import Path

from ..settings import DataSettings
from .augment import Augmentation
from .batches import Batch, Batches
from .cifar import load_cifar
from .digits import load_digits
from .folder import load_folder
from .source import DataSource, Samples
from .tiny_imagenet import load_tiny_imagenet

DATASETS = {
    "digits": "handwritten digits, 8 x 8 pixels, 1,437 + 360 images, part of scikit-learn",
    "cifar10": "CIFAR-10, 32 x 32 pixels, 50,000 + 10,000 images",
    "cifar100": "CIFAR-100, 32 x 32 pixels, 50,000 + 10,000 images",
    "tiny-imagenet": "Tiny-ImageNet, 64 x 64 pixels, 100,000 + 10,000 images",
    "folder:PATH": "any images: PATH/train/CLASS and PATH/test/CLASS (or val), or PATH/CLASS",
    "digits-events": "the digits, moved before a simulated event camera",
    "nmnist": "N-MNIST, events, 34 x 34 pixels, 60,000 + 10,000 recordings",
    "dvs-cifar10": "DVS-CIFAR10, events, 128 x 128 pixels, 9,000 + 1,000 recordings",
    "dvs-gesture": "DVS-Gesture, events, 128 x 128 pixels, 1,176 + 288 recordings",
    "tonic:NAME": "a data set of the package tonic, by the name of its class there",
}
"""Every data set by its name, with a description of one line."""

_EVENTS = ("digits-events", "nmnist", "dvs-cifar10", "dvs-gesture", "tonic:")
_IMAGES = {
    "digits": load_digits,
    "cifar10": load_cifar,
    "cifar100": load_cifar,
    "tiny-imagenet": load_tiny_imagenet,
}


def load_data(settings: DataSettings, T: int) -> DataSource:
    """The data set that ``settings.data`` names: one of :data:`DATASETS`, with a path or name after a colon.

    Args:
        settings: where it lies, its size, how events become frames.
        T: number of frames an event recording is cut into; images do not depend on it.

    Raises:
        ValueError: a setting is not allowed, or the data set is missing or damaged; says what to do.
    """
    settings.check()
    if T < 1:
        raise ValueError(f"T must be 1 or more, got {T}")
    name, colon, rest = settings.data.partition(":")
    known = settings.data in DATASETS if not colon else rest != "" and name in ("folder", "tonic")
    if not known:
        raise ValueError(f"data must be one of {', '.join(DATASETS)}, got {settings.data!r}")
    if name + colon in _EVENTS:
        from .events import load_events

        return load_events(settings, T)
    if settings.nda:
        raise ValueError(f"nda must be False for images, it is for events, got True with data {settings.data!r}")
    if name == "folder":
        return load_folder(settings, Path(rest).expanduser())
    return _IMAGES[name](settings)


__all__ = ["DATASETS", "Augmentation", "Batch", "Batches", "DataSource", "Samples", "load_data"]
