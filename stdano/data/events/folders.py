"""Event data sets that lie in folders as they were published: N-MNIST, DVS-CIFAR10, DVS-Gesture."""

from __future__ import annotations

import csv
import functools
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..cache import fingerprint
from ..files import check_disjoint, listed
from .formats import read_aedat2, read_aedat3, read_nmnist
from .recordings import EventSet, Recordings, from_files
from .tonic_sets import download, read_aedat4

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GESTURES = (
    *("hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter-clockwise"),
    *("left arm clockwise", "left arm counter-clockwise", "arm roll", "air drums", "air guitar", "other"),
)


def nmnist(root: Path) -> EventSet:
    """N-MNIST: ``Train/0/*.bin`` to ``Test/9/*.bin`` in ``root``, ``root/nmnist`` or, where tonic puts it,
    ``root/NMNIST``; downloaded through tonic where it is not there.

    Raises:
        ValueError: it is not there and could not be downloaded, or is not complete: a part or all recordings of a digit
            are missing.
    """
    advice = (
        "get Train.zip and Test.zip from https://data.mendeley.com/datasets/468j46mzdv and unpack them, so that there "
        f"are {root / 'nmnist' / 'Train' / '0' / '*.bin'} and so on"
    )
    folder = _find(root, ("nmnist", "NMNIST"), _has_digits)
    if folder is None:
        folder = download("nmnist", "NMNIST", root, advice, [{"train": True}, {"train": False}])

    def part(name: str) -> Recordings:
        of_digits = [listed(folder / name / str(digit), "*.bin") for digit in range(10)]
        files = [file for of_digit in of_digits for file in of_digit]
        lacking = [str(digit) for digit, of_digit in enumerate(of_digits) if not of_digit]
        if lacking:
            what = f"recordings of {', '.join(lacking)}" if files else "recordings"
            raise ValueError(f"nmnist has no {what} in {folder / name}: {advice}")
        return from_files(files, [int(file.parent.name) for file in files], folder, read_nmnist)

    return EventSet(part("Train"), part("Test"), tuple(map(str, range(10))), sensor=(34, 34), size=34)


def dvs_cifar10(root: Path) -> EventSet:
    """DVS-CIFAR10: ``airplane/cifar10_airplane_0.aedat`` to ``truck/cifar10_truck_999.aedat`` (or ``.aedat4``, the
    edition that tonic downloads) in ``root``, ``root/dvs-cifar10`` or ``root/CIFAR10DVS``; downloaded through tonic
    where it is not there. Of each class the last tenth by the files' numbers, 900 to 999, is the test. Warns where
    classes have different numbers of recordings, since all have 1,000.

    Raises:
        ValueError: it is not there and could not be downloaded, or a class is missing.
    """
    advice = (
        "get airplane.zip to truck.zip from https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671 and unpack "
        f"them, so that there are {root / 'dvs-cifar10' / 'airplane' / 'cifar10_airplane_0.aedat'} and so on"
    )
    folder = _find(root, ("dvs-cifar10", "CIFAR10DVS"), lambda f: sum((f / name).is_dir() for name in CIFAR10) > 4)
    if folder is None:
        folder = download("dvs-cifar10", "CIFAR10DVS", root, advice, [{}])
    train: list[tuple[Path, int]] = []
    test: list[tuple[Path, int]] = []
    for label, name in enumerate(CIFAR10):
        files = sorted(listed(folder / name, "*.aedat") or listed(folder / name, "*.aedat4"), key=_number)
        if len(files) < 2:
            raise ValueError(f"dvs-cifar10 has {len(files)} recordings in {folder / name}: {advice}")
        split = len(files) - max(len(files) // 10, 1)
        train += [(file, label) for file in files[:split]]
        test += [(file, label) for file in files[split:]]

    counts = np.bincount([label for _, label in train + test])
    if counts.min() < counts.max():
        short = ", ".join(
            f"{name} {count}" for name, count in zip(CIFAR10, counts, strict=True) if count < counts.max()
        )
        message = f"dvs-cifar10 is not complete in {folder}: of {counts.max()} recordings a class there are {short}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)

    def part(chosen: list[tuple[Path, int]]) -> Recordings:
        files, labels = [file for file, _ in chosen], [label for _, label in chosen]
        return from_files(files, labels, folder, _read_aedat, version=2)

    return EventSet(part(train), part(test), CIFAR10, sensor=(128, 128), size=48)


def dvs_gesture(root: Path) -> EventSet:
    """DVS-Gesture: ``trials_to_train.txt``, ``trials_to_test.txt`` and the ``.aedat`` and ``_labels.csv`` files that
    they name, in ``root``, ``root/dvs-gesture`` or ``root/DvsGesture``. A recording is a trial of a ``_labels.csv``,
    its events from the start to just before the end: 1176 for training and 288 for the test, as in SpikingJelly.

    tonic's edition is cut otherwise (1077 and 264): that is ``tonic:DVSGesture``.

    Raises:
        ValueError: it is not there or not complete, or a ``_labels.csv`` is damaged.
    """
    advice = (
        "get DvsGesture.tar.gz from https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794 and "
        f"unpack it, so that there is {root / 'DvsGesture' / 'trials_to_train.txt'} with the files that it names"
    )
    folder = _find(root, ("dvs-gesture", "DvsGesture"), lambda f: (f / "trials_to_train.txt").is_file())
    if folder is None:
        raise ValueError(f"dvs-gesture is not in {root}, and has to be got by hand: {advice}")

    @functools.lru_cache(maxsize=1)  # trials of one file follow one another
    def whole(file: Path) -> np.ndarray:
        return read_aedat3(file)

    def files_of(part: Path) -> list[Path]:
        if not part.is_file():
            raise ValueError(f"dvs-gesture has no {part}: {advice}")
        files = [part.parent / line.strip() for line in part.read_text().splitlines() if line.strip()]
        for file in files:
            for needed in (file, _table(file)):
                if not needed.is_file():
                    raise ValueError(f"dvs-gesture has no {needed}, which {part.name} names: {advice}")
        return files

    def part(files: list[Path]) -> Recordings:
        tables = [_table(file) for file in files]
        trials = [(file, *trial) for file, table in zip(files, tables, strict=True) for trial in _trials(table)]

        def read(index: int) -> np.ndarray:
            file, _, start, end = trials[index]
            events = whole(file)
            return events[(events["t"] >= start) & (events["t"] < end)]

        return Recordings(
            names=[f"{file} from {start} to {end} us" for file, _, start, end in trials],
            labels=np.array([label for _, label, _, _ in trials], dtype=np.int64),
            fingerprint=fingerprint((*files, *tables), folder),
            read=read,
        )

    train_files, test_files = files_of(folder / "trials_to_train.txt"), files_of(folder / "trials_to_test.txt")
    check_disjoint(train_files, test_files)
    train, test = part(train_files), part(test_files)
    return EventSet(train, test, GESTURES, sensor=(128, 128), size=128)


def _trials(table: Path) -> list[tuple[int, int, int]]:
    """Label from 0, start and end of each trial."""
    trials = []
    with open(table, newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if number == 1 or not row:
                continue
            try:
                label, start, end = map(int, row)
            except ValueError:
                label, start, end = 0, 0, 0
            if not (1 <= label <= len(GESTURES) and start < end):
                raise ValueError(
                    f"{table} is damaged: line {number} must be a class from 1 to {len(GESTURES)}, start and end of a "
                    f"trial in microseconds, got {','.join(row)!r}"
                )
            trials.append((label - 1, start, end))
    if not trials:
        raise ValueError(f"{table} is damaged: it has no trials")
    return trials


def _has_digits(folder: Path) -> bool:
    """Whether there is any folder of N-MNIST."""
    return any((folder / part / str(digit)).is_dir() for part in ("Train", "Test") for digit in range(10))


def _table(file: Path) -> Path:
    """The trials of a file."""
    return file.with_name(f"{file.stem}_labels.csv")


def _find(root: Path, names: tuple[str, ...], there: Callable[[Path], bool]) -> Path | None:
    return next((folder for folder in (*(root / name for name in names), root) if there(folder)), None)


def _number(file: Path) -> int:
    digits = re.search(r"(\d+)$", file.stem)
    if digits is None:
        raise ValueError(f"{file} must have a number at the end of its name")
    return int(digits.group())


def _read_aedat(path: Path) -> np.ndarray:
    return read_aedat4(path) if path.suffix == ".aedat4" else read_aedat2(path)
