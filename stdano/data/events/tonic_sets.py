"""Event data through tonic, which is imported only here and only when asked for: its licence is not ours."""

from __future__ import annotations

import contextlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..cache import fingerprint
from ..files import locked
from .formats import unwrapped
from .recordings import EVENTS, EventSet, Recordings

VERSION = 2
"""Changes whenever the same files would give other events."""


def tonic_set(name: str, root: Path) -> EventSet:
    """A data set of ``tonic.datasets``, below ``root`` where tonic puts it, downloaded where it is not there.

    Its ``train`` argument splits it; where it has none, the last tenth of each class is the test, in the order of the
    files' names (with numbers in their order) or else in the data set's own. Frames have the size of the sensor's
    longer side, but 128 at most; where recordings differ in size, each fills its frames.

    Raises:
        ModuleNotFoundError: tonic is not installed.
        ValueError: there is no such data set, it is not there and could not be downloaded, or it is not one of labelled
            recordings of a camera.
    """
    known = sorted(_tonic().__all__)
    kind = getattr(_tonic(), name, None)
    if not inspect.isclass(kind):
        raise ValueError(f"data must be tonic: and one of {', '.join(known)}, got tonic:{name}")
    url = getattr(kind, "url", None) or getattr(kind, "base_url", None) or "its documentation"
    advice = f"see {url} to put it into {root / name} by hand"
    if "train" in inspect.signature(kind).parameters:
        train, test = (_open(name, root, advice, train=part) for part in (True, False))
        train_targets, test_targets = _targets(name, train), _targets(name, test)
        train_indices, test_indices = list(range(len(train))), list(range(len(test)))
    else:
        train = test = _open(name, root, advice)
        train_targets = test_targets = _targets(name, train)
        train_indices, test_indices = _split(train, train_targets)
    values = sorted({*train_targets, *test_targets})
    sensor = _sensor(name, train)

    def part(dataset: Any, targets: list[Any], indices: list[int]) -> Recordings:
        files = _files(dataset) or [f"recording {i} of tonic:{name}" for i in range(len(dataset))]

        def read(index: int) -> np.ndarray:
            name = files[indices[index]]
            try:
                events, _ = dataset[indices[index]]
            except Exception as error:  # of any kind, depending on the data set
                raise ValueError(f"{name} is damaged: {type(error).__name__}: {error}") from error
            return _convert(name, events)

        return Recordings(
            names=[files[i] for i in indices],
            labels=np.array([values.index(targets[i]) for i in indices], dtype=np.int64),
            fingerprint=f"{VERSION} {_fingerprint(name, dataset)}",
            read=read,
        )

    return EventSet(
        train=part(train, train_targets, train_indices),
        test=part(test, test_targets, test_indices),
        classes=_classes(train, values),
        sensor=sensor,
        size=min(max(sensor), 128) if sensor else 128,
    )


def download(data: str, name: str, root: Path, advice: str, parts: list[dict[str, bool]]) -> Path:
    """Has tonic download a data set to ``root/name``, and returns that folder.

    Args:
        data: its name here, for errors.
        name: of its class in tonic.
        root: folder in which data sets lie.
        advice: what to do by hand.
        parts: arguments of the class for each of its parts.

    Raises:
        ValueError: tonic is not installed or could not; with the advice.
    """
    try:
        for part in parts:
            _open(name, root, advice, **part)
    except ModuleNotFoundError as error:
        raise ValueError(f"{data} is not in root, {root}. To download it, {error}; or {advice}") from error
    return root / name


def read_aedat4(path: Path) -> np.ndarray:
    """AEDAT 4, through tonic and the package aedat.

    Raises:
        ModuleNotFoundError: one of them is not installed.
        ValueError: the file is damaged.
    """
    _tonic()
    from tonic.io import read_aedat4 as read

    try:
        events = read(str(path))
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} can be read with tonic and the package aedat: pip install aedat") from error
    except Exception as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    events.dtype.names = ("t", "x", "y", "p")  # aedat calls the last one "on"; tonic's data set renames it so too
    return _convert(str(path), events)


def _tonic() -> ModuleType:
    try:
        import tonic.datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"install tonic: pip install 'stdano[events]' ({error})") from error
    return tonic.datasets


def _open(name: str, root: Path, advice: str, **part: bool) -> Any:
    kind = getattr(_tonic(), name)
    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # where nothing can be written, nothing is downloaded either
                stack.enter_context(locked(root / f".{name}.lock"))
            return kind(save_to=str(root), **part)
    except Exception as error:  # a download fails in many ways, and tonic passes all of them on
        raise ValueError(
            f"tonic could not find {name} in root, {root}, nor download it ({type(error).__name__}: {error}): {advice}"
        ) from error


def _targets(name: str, dataset: Any) -> list[Any]:
    targets = getattr(dataset, "targets", ())
    if len(targets) != len(dataset):
        targets = [dataset[i][1] for i in range(len(dataset))]
    wrong = [t for t in targets if isinstance(t, bool) or not isinstance(t, (int, np.integer, str))]
    if wrong or len(targets) == 0:
        got = f"{type(wrong[0]).__name__}" if wrong else "no recordings"
        raise ValueError(
            f"tonic:{name} must be a data set for classification, with an int or str a recording, got {got}"
        )
    return [t if isinstance(t, str) else int(t) for t in targets]


def _split(dataset: Any, targets: list[Any]) -> tuple[list[int], list[int]]:
    """Indices for training and for the test. tonic lists some folders in the order of the disk, hence the names."""
    order = list(range(len(targets)))
    files = _files(dataset)
    if files:
        order.sort(key=lambda i: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", files[i])])
    train, test = [], []
    for value in sorted(set(targets)):
        members = [i for i in order if targets[i] == value]
        split = len(members) - max(len(members) // 10, 1)
        train += members[:split]
        test += members[split:]
    return train, test


def _files(dataset: Any) -> list[str]:
    """The file of each recording, where each has one; else nothing."""
    files = getattr(dataset, "data", ())
    listed = len(files) == len(dataset) and all(isinstance(file, (str, Path)) for file in files)
    return [str(file) for file in files] if listed else []


def _sensor(name: str, dataset: Any) -> tuple[int, int] | None:
    sensor = getattr(dataset, "sensor_size", None)
    if sensor is None:
        return None
    if min(sensor[:2]) < 2:
        raise ValueError(f"tonic:{name} must be recorded by a camera, got a sensor of {sensor[0]} x {sensor[1]}")
    return int(sensor[0]), int(sensor[1])


def _classes(dataset: Any, values: list[Any]) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    if isinstance(names, dict):
        names = sorted(names, key=names.__getitem__)
    if isinstance(names, (list, tuple)) and values == list(range(len(names))):
        return tuple(map(str, names))
    return tuple(map(str, values))


def _fingerprint(name: str, dataset: Any) -> str:
    folder = Path(dataset.location_on_system)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if not files:
        raise ValueError(f"tonic:{name} must have files in {folder}: without, its changes would not be seen")
    return fingerprint(files, folder)


def _convert(name: str, events: np.ndarray) -> np.ndarray:
    """A structured array with fields t, x, y, perhaps p, in any order and of any whole type."""
    kind: Any = getattr(events, "dtype", None)
    fields = getattr(kind, "names", None) or ()
    if not all(field in fields and np.issubdtype(kind[field], np.integer) for field in "txy"):
        raise ValueError(f"{name} must have events with whole numbers t, x and y, got {kind}")
    converted = np.zeros(len(events), EVENTS)
    for field in "txy":
        converted[field] = events[field]
    if kind["t"].itemsize == 4:
        converted["t"] = unwrapped(converted["t"])
    if "p" in fields:
        converted["p"] = events["p"] > 0
    return converted
