"""What loaders share: one process at a time, and what to do by hand where a download fails."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

DOWNLOAD_ERRORS = (OSError, RuntimeError, HTTPException)
"""what torchvision's download functions raise: no network, no room, a wrong md5 sum, an answer that ends early"""


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
