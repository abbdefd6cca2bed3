"""Events are counted, in T frames of two channels. Not one is lost."""

from __future__ import annotations

import numpy as np

VERSION = 1
"""Changes whenever the same events would give other frames; frames of another version in the cache are not used."""


def to_frames(
    events: np.ndarray, T: int, rule: str, sensor: tuple[int, int] | None, size: int
) -> tuple[np.ndarray, int]:
    """The number of events at each pixel in each of T slices of a recording.

    A sensor that is not square is centred in a square of its longer side. Coordinates are scaled to ``size`` by whole
    numbers, each event on its own, so that pixels that fall together are added up. Events that are not in order of
    time are put in order; those of one time stay as they are.

    Args:
        events: structured array with fields t, x, y, p, in any order, any number.
        T: number of frames.
        rule: "count": as many events in each frame, the last one takes the remainder as well. "time": frames of equal
            duration from the first to the last event, which is the last frame's.
        sensor: width and height in pixels; None: up to the largest coordinates in these events.
        size: height and width of the frames in pixels.

    Returns:
        uint8 ``[T, 2, size, size]``, channel 0 for events that got darker, channel 1 for brighter; and the number of
        events that are missing in it because a pixel holds 255 at most.
    """
    t = events["t"]
    if np.any(t[1:] < t[:-1]):
        events = events[np.argsort(t, kind="stable")]
        t = events["t"]
    count = len(events)
    if count == 0:
        return np.zeros((T, 2, size, size), np.uint8), 0
    if rule == "count":
        each = count // T
        step = np.full(count, T - 1) if each == 0 else np.minimum(np.arange(count) // each, T - 1)
    else:
        step = np.minimum((t - t[0]) * T // max(int(t[-1] - t[0]), 1), T - 1)
    x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
    width, height = sensor or (int(x.max()) + 1, int(y.max()) + 1)
    side = max(width, height)
    column = (x + (side - width) // 2) * size // side
    row = (y + (side - height) // 2) * size // side
    place = ((step * 2 + events["p"]) * size + row) * size + column
    counts = np.bincount(place, minlength=T * 2 * size * size).reshape(T, 2, size, size)
    frames = np.minimum(counts, 255).astype(np.uint8)
    return frames, count - int(frames.sum(dtype=np.int64))
