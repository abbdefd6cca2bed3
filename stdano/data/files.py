"""What loaders share: folders and their files, one process at a time, and what to do by hand where a download fails."""

from __future__ import annotations

import contextlib
import fcntl
import os
import warnings
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

DOWNLOAD_ERRORS = (OSError, RuntimeError, HTTPException)
"""what torchvision's download functions raise: no network, no room, a wrong md5 sum, an answer that ends early"""

# Of archives from macOS, Python, file servers, Windows and Linux; all others that systems make begin with a dot.
_NOT_DATA = {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}


def is_data(name: str) -> bool:
    """Whether a file or folder of this name may belong to a data set: not hidden, and none that systems make."""
    return not name.startswith(".") and name not in _NOT_DATA


def listed(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder whose names match, in their order, without hidden ones."""
    return sorted(file for file in folder.glob(pattern) if is_data(file.name))


def expanded(path: str, name: str) -> Path:
    """A path that may begin with ``~``.

    Raises:
        ValueError: nobody knows which folder that is; names the argument ``name``.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name} must be a path without ~ here, since {str(error).rstrip('.')}, got {path}") from error


def contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files in a folder that may belong to a data set, each in order. Links are followed, but those to the
    folder itself and to one that holds it are left out: they have no end.

    Raises:
        OSError: it cannot be read.
    """
    folders: list[Path] = []
    files: list[Path] = []
    real = os.path.realpath(folder)
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if is_data(entry.name)), key=lambda entry: entry.name)
    for entry in found:
        if not entry.is_symlink():
            (folders if entry.is_dir() else files).append(folder / entry.name)
        elif not os.path.isdir(entry.path):
            files.append(folder / entry.name)
        elif not os.path.join(real, "").startswith(os.path.join(os.path.realpath(entry.path), "")):
            folders.append(folder / entry.name)
    return folders, files


def check_disjoint(train: Sequence[Path], test: Sequence[Path]) -> None:
    """Warns where files, by whatever links, are for training and for the test.

    Raises:
        ValueError: all test files are, or a file is missing; names it.
    """
    try:
        for_training = {_identity(file): file for file in train}
        shared = [(file, for_training[key]) for file in test if (key := _identity(file)) in for_training]
    except OSError as error:
        raise ValueError(f"{error.filename} is missing or cannot be read: {error}") from error
    if not shared:
        return
    file, other = shared[0]
    message = f"{len(shared)} of {len(test)} test files are training files as well, such as {file}"
    message += f", which is {other}" if file != other else ""
    if len(shared) == len(test):
        raise ValueError(f"data must have samples for the test that are not for training, {message}")
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _identity(file: Path) -> tuple[int, ...]:
    stat = file.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Waits until no other process of this machine is inside, however that one ends; creates the file ``path``.

    Yields:
        Whether the lock is held: some network file systems have none.

    Raises:
        OSError: the file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        held = False
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = True
        yield held


def not_downloaded(data: str, root: Path, url: str, md5: str, error: object) -> ValueError:
    """The error for a data set that is neither in ``root`` nor could be fetched; says what to do by hand."""
    return ValueError(
        f"{data} is not in root, {root}, and could not be downloaded: {error}. Download {url} (md5 {md5}) elsewhere, "
        f"put {url.rsplit('/', 1)[1]} into {root}, and it will be unpacked there"
    )
