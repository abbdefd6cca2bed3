"""What every event data set is read into: lists of recordings, each a structured array of events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cache import fingerprint

EVENTS = np.dtype([("t", np.int64), ("x", np.int32), ("y", np.int32), ("p", np.bool_)])
"""An event: time in microseconds, column and row from the upper left, and whether it got brighter."""

# Random addresses read as times run backwards in half of all steps; a camera's own glitches are rare.
MOST_STEPS_BACK = 0.1


@dataclass(frozen=True)
class Recordings:
    """One part of an event data set.

    Attributes:
        names: of each recording, for errors: its file.
        labels: int64, from 0.
        fingerprint: of all that the events depend on.
        read: gives the events of the recording with an index, a structured array of type :data:`EVENTS`.
    """

    names: Sequence[object]
    labels: np.ndarray
    fingerprint: str
    read: Callable[[int], np.ndarray]

    def events(self, index: int, sensor: tuple[int, int] | None) -> np.ndarray:
        """The events of a recording, checked.

        Args:
            index: of the recording.
            sensor: width and height in pixels; None where it is not known.

        Raises:
            ValueError: the recording is damaged; names it.
        """
        events, name = self.read(index), self.names[index]
        if len(events) == 0:
            raise ValueError(f"{name} is damaged: it has no events")
        x, y = events["x"], events["y"]
        width, height = sensor or (np.inf, np.inf)
        if x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height:
            raise ValueError(
                f"{name} is damaged: events must lie on the sensor of {width} x {height} pixels, got x from {x.min()} "
                f"to {x.max()} and y from {y.min()} to {y.max()}"
            )
        back = np.count_nonzero(np.diff(events["t"]) < 0)
        if back > MOST_STEPS_BACK * len(events):
            raise ValueError(f"{name} is damaged: time runs backwards {back} times in {len(events)} events")
        return events


@dataclass(frozen=True)
class EventSet:
    """An event data set.

    Attributes:
        train, test: the two parts.
        classes: names of the classes.
        sensor: width and height in pixels; None where each recording has its own.
        size: default height and width of frames in pixels.
    """

    train: Recordings
    test: Recordings
    classes: tuple[str, ...]
    sensor: tuple[int, int] | None
    size: int


def from_files(
    files: Sequence[Path], labels: Sequence[int], folder: Path, reader: Callable[[Path], np.ndarray], version: int = 1
) -> Recordings:
    """Recordings of which each has a file of its own below ``folder``, read by ``reader``, whose ``version`` changes
    whenever the same files would give other events."""
    of_files = fingerprint(files, folder) if version == 1 else f"{version} {fingerprint(files, folder)}"
    return Recordings(files, np.array(labels, dtype=np.int64), of_files, lambda i: reader(files[i]))
