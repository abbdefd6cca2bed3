"""Event data: recordings of event cameras, turned into frames that are kept on disk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...settings import DataSettings
from ..cache import cached
from ..files import check_disjoint, expanded
from ..source import DataSource, Encoding, Samples
from .digits import digits_events
from .folders import dvs_cifar10, dvs_gesture, nmnist
from .frames import VERSION, to_frames
from .recordings import EventSet, Recordings
from .tonic_sets import tonic_set

_SETS: dict[str, Callable[[Path], EventSet]] = {
    "digits-events": lambda root: digits_events(),
    "nmnist": nmnist,
    "dvs-cifar10": dvs_cifar10,
    "dvs-gesture": dvs_gesture,
}

__all__ = ["load_events"]


def load_events(settings: DataSettings, T: int, encoding: Encoding | None = None) -> DataSource:
    """An event data set as frames ``[N, T, 2, size, size]``, from the cache or made now and kept there.

    Channel 0 counts the events of a pixel that got darker, channel 1 those that got brighter, up to 255. The mean is
    0, so that silence stays 0. With ``values="counts"`` the standard deviation is the root mean square of the training
    pixels that saw an event; with ``"binary"`` a pixel that saw one is 1.

    Args:
        settings: ``data`` is digits-events, nmnist, dvs-cifar10, dvs-gesture or tonic:NAME; ``size`` is at most the
            sensor's; ``root``, ``cache``, ``frames`` and ``values`` count as well.
        T: number of frames, 1 or more.
        encoding: of a trained network. The training part is left empty then, and what it says of the standard deviation
            is not known: the samples still have to be encoded.

    Raises:
        ValueError: there is no such data set, or an argument does not fit it; it is not there and could not be
            downloaded: says what to put where; or a file is damaged: names it.
        ModuleNotFoundError: scikit-learn or tonic is needed and not installed.
    """
    if T < 1:
        raise ValueError(f"T must be 1 or more, got {T}")
    root = expanded(settings.root, "root")
    if settings.data.startswith("tonic:"):
        events = tonic_set(settings.data.removeprefix("tonic:"), root)
    elif settings.data in _SETS:
        events = _SETS[settings.data](root)
    else:
        raise ValueError(f"data must be one of {', '.join(_SETS)} or tonic:NAME, got {settings.data!r}")
    size = settings.size or events.size
    if events.sensor and size > max(events.sensor):
        raise ValueError(f"size must be at most {max(events.sensor)}, the sensor's, for {settings.data}, got {size}")
    _check(events, settings.data)
    binary, std = settings.values == "binary", 1.0
    if encoding is None:
        train, about = _frames(events.train, "train", events.sensor, settings, T, size)
        test, _ = _frames(events.test, "test", events.sensor, settings, T, size)
        std = std if binary else math.sqrt(about["squares"] / about["pixels"]) / 255
    else:
        test, _ = _frames(events.test, "test", events.sensor, settings, T, size)
        train = test.none()
    return DataSource(settings.data, train, test, events.classes, (0.0, 0.0), (std, std), binary)


def _check(events: EventSet, data: str) -> None:
    """That the parts are apart; warns of classes that one of them lacks."""
    files = [[name for name in part.names if isinstance(name, Path)] for part in (events.train, events.test)]
    check_disjoint(*files)
    for part, words in ((events.train, "for training"), (events.test, "for the test")):
        there = set(part.labels.tolist())
        lacking = [name for label, name in enumerate(events.classes) if label not in there]
        if lacking:
            message = f"{data} has no recordings {words} of {', '.join(lacking)}; is it complete?"
            warnings.warn(message, RuntimeWarning, stacklevel=3)


def _frames(
    recordings: Recordings, part: str, sensor: tuple[int, int] | None, settings: DataSettings, T: int, size: int
) -> tuple[Samples, dict[str, Any]]:
    """Frames, and how many events they lack for saturation, how many pixels saw one, and the sum of their squares."""

    def fill(values: np.ndarray) -> dict[str, Any]:
        about = {"saturated": 0, "pixels": 0, "squares": 0}
        for index, sample in enumerate(values):
            sample[...], saturated = to_frames(recordings.events(index, sensor), T, settings.frames, sensor, size)
            about["saturated"] += saturated
            about["pixels"] += int(np.count_nonzero(sample))
            about["squares"] += int(np.square(sample, dtype=np.int64).sum())
        return about

    key = {
        **{"data": settings.data, "part": part, "T": T, "frames": settings.frames, "size": size},
        **{"version": VERSION, "files": recordings.fingerprint},
    }
    values, about = cached(settings.cache, key, (len(recordings.labels), T, 2, size, size), fill)
    return Samples(values, recordings.labels), about
