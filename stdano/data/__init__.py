"""Data sets, their augmentation, and batches of them."""

from __future__ import annotations

from ..settings import DataSettings
from .augment import Augmentation
from .batches import Batch, Batches
from .cifar import load_cifar
from .digits import load_digits
from .files import expanded
from .folder import load_folder
from .source import DataSource, Encoding, Samples
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


def load_data(settings: DataSettings, T: int, encoding: Encoding | None = None) -> DataSource:
    """The data set that ``settings.data`` names: one of :data:`DATASETS`, with a path or name after a colon.

    Args:
        settings: where it lies, its size, how events become frames.
        T: number of frames an event recording is cut into; images do not depend on it.
        encoding: of a trained network, which is to be tested: classes must be the same, samples are scaled by it, and
            where mean and deviation would have been taken from the training part, that is left empty and need not be
            there. By default the data set's own.

    Raises:
        ValueError: a setting is not allowed, the data set is missing or damaged, or does not fit ``encoding``; says
            what to do.
    """
    source = _loaded(settings, T, encoding)
    return source if encoding is None else source.encoded(encoding)


def _loaded(settings: DataSettings, T: int, encoding: Encoding | None) -> DataSource:
    settings.check()
    if T < 1:
        raise ValueError(f"T must be 1 or more, got {T}")
    name, colon, rest = settings.data.partition(":")
    known = settings.data in DATASETS if not colon else rest != "" and name in ("folder", "tonic")
    if not known:
        raise ValueError(f"data must be one of {', '.join(DATASETS)}, got {settings.data!r}")
    if name + colon in _EVENTS:
        from .events import load_events

        return load_events(settings, T, encoding)
    if settings.nda:
        raise ValueError(f"nda must be False for images, it is for events, got True with data {settings.data!r}")
    if name == "folder":
        return load_folder(settings, expanded(rest, "data"), encoding)
    return _IMAGES[name](settings)


__all__ = ["DATASETS", "Augmentation", "Batch", "Batches", "DataSource", "Encoding", "Samples", "load_data"]
