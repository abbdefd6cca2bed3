"""Events of scikit-learn's handwritten digits: each moves before a simulated event camera. Needs no download."""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from .recordings import EVENTS, EventSet, Recordings

VERSION = 1
"""Changes whenever the same digits would give other events."""
SENSOR = 16
ENLARGED = 1.5
# Corners of the path in pixels, as in N-MNIST: a triangle, the last side of which is horizontal.
CORNERS = np.array([(-2.0, -2.0), (0.0, 2.0), (2.0, -2.0), (-2.0, -2.0)])
SACCADE = 100_000
STEP = 5_000
# Light is at least BLACK, so that its logarithm exists; a change of CONTRAST in the logarithm makes an event.
BLACK, CONTRAST = 0.1, 0.35


def digits_events() -> EventSet:
    """Each digit enlarged to 12 x 12 pixels and moved along a triangle, in three saccades of 100 ms, on a sensor of
    16 x 16. The split is that of the digits: 1437 for training, 360 for the test, the same share of each.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed (``pip install 'stdano[app]'``).
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    images, labels = source.images / 16, source.target.astype(np.int64)
    parts = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)

    def part(indices: np.ndarray) -> Recordings:
        digest = hashlib.sha256(np.ascontiguousarray(images[indices]).tobytes()).hexdigest()

        @functools.cache
        def recordings() -> list[np.ndarray]:
            return film(images[indices])

        names = [f"digits-events, digit {i}" for i in indices]
        return Recordings(names, labels[indices], f"{VERSION} {digest}", lambda i: recordings()[i])

    train, test = map(part, parts)
    return EventSet(train, test, tuple(map(str, range(10))), sensor=(SENSOR, SENSOR), size=SENSOR)


def film(images: np.ndarray) -> list[np.ndarray]:
    """What an event camera sees of images that move.

    Each pixel remembers a level of the logarithm of its light, at first the one it starts with. Where the logarithm
    gets further from it than ``CONTRAST``, there is an event, brighter or darker, and the remembered level follows by
    as much; its time is interpolated within a step of 5 ms. The same images give the same events.

    Args:
        images: ``[N, 8, 8]``, light from 0 to 1.

    Returns:
        for each image its events, in order of time.
    """
    times = np.arange(0, 3 * SACCADE + 1, STEP)
    path = [np.interp(times / SACCADE, np.arange(4), corner) for corner in CORNERS.T]
    memory = before = _light(images, path[0][0], path[1][0])
    found = []
    for k in range(1, len(times)):
        now = _light(images, path[0][k], path[1][k])
        # Rounded: the path ends where it began, exactly on remembered levels, where the last bit must not decide.
        crossed = np.trunc(np.round((now - memory) / CONTRAST, 6)).astype(np.int64)
        image, row, column = np.nonzero(crossed)
        number = np.abs(crossed[image, row, column])
        each = np.repeat(np.arange(len(number)), number)
        nth = np.arange(len(each)) - np.repeat(np.cumsum(number) - number, number) + 1
        at = (image[each], row[each], column[each])
        brighter = crossed[at] > 0
        level = memory[at] + CONTRAST * np.where(brighter, nth, -nth)
        events = np.empty(len(each), np.dtype([("image", np.int64), *EVENTS.descr]))
        events["t"] = times[k - 1] + STEP * np.clip((level - before[at]) / (now[at] - before[at]), 0, 1)
        events["image"], events["y"], events["x"], events["p"] = *at, brighter
        found.append(events)
        memory, before = memory + CONTRAST * crossed, now
    everything = np.concatenate(found)
    everything = everything[np.lexsort((everything["t"], everything["image"]))]
    ends = np.cumsum(np.bincount(everything["image"], minlength=len(images)))
    return np.split(everything[list(EVENTS.names or ())].astype(EVENTS), ends[:-1])


def _light(images: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Logarithm of the light ``[N, SENSOR, SENSOR]`` of the images, enlarged and moved by so many pixels."""
    x, y = (_weights(images.shape[-1], offset) for offset in (dx, dy))
    return np.log(BLACK + y @ images @ x.T)


def _weights(pixels: int, offset: float) -> np.ndarray:
    """How much each of an image's pixels counts at each of the sensor's, along one axis: linear interpolation."""
    centre = (np.arange(SENSOR) - offset - (SENSOR - 1) / 2) / ENLARGED + (pixels - 1) / 2
    return np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(pixels)))
