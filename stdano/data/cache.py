"""Decoded samples on disk: one memory-mapped array an entry, and a JSON file that says what it was made of."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .files import expanded, locked


def cached(
    folder: str, key: dict[str, Any], shape: tuple[int, ...], fill: Callable[[np.ndarray], dict[str, Any]]
) -> tuple[np.ndarray, dict[str, Any]]:
    """The array that ``key`` describes, from the cache, or else made by ``fill`` and kept.

    An entry appears only once it is complete, whatever stops its making. Processes that want the same entry at once
    wait for one of them to make it. An entry whose size is wrong is made anew.

    Args:
        folder: where entries are kept; "" for ``stdano`` in ``$XDG_CACHE_HOME``, or else in ``~/.cache``.
        key: what the values depend on, as JSON allows it: data set, part, sizes, a version of the rule by which they
            are made, and the :func:`fingerprint` of the files that they are read from.
        shape: of the uint8 array, first the number of samples; no dimension is 0.
        fill: writes all values of the array that it is given, which may hold anything at first, and returns what else
            is to be kept, as JSON allows it.

    Returns:
        A read-only memory map, uint8, and what ``fill`` returned.

    Raises:
        ValueError: the folder cannot be written, or its disk has no room for the array; or there is no home folder for
            the default.
    """
    place = _place(folder)
    text = json.dumps(key, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    entry = _read(place, name, text, shape)
    if entry is not None:
        return entry
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.lock").touch()
    except OSError as error:
        raise ValueError(f"cache must be a folder that can be written, got {place}: {error}") from error
    with locked(place / f"{name}.lock") as held:
        for leftover in place.glob(f".{name}.*.tmp") if held else ():  # of a process that was killed
            leftover.unlink(missing_ok=True)
        entry = _read(place, name, text, shape)
        if entry is None:
            _make(place, name, text, shape, fill)
            entry = _read(place, name, text, shape)
    if entry is None:
        raise ValueError(f"cache must be a folder that keeps what is written, {place} does not")
    return entry


def _place(folder: str) -> Path:
    if folder:
        return expanded(folder, "cache")
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "stdano"
    except RuntimeError as error:
        raise ValueError(
            "cache must be given (or XDG_CACHE_HOME set) where HOME is not set and the user has no home folder"
        ) from error


def fingerprint(files: Iterable[Path], root: Path) -> str:
    """64 hexadecimal digits of the files' names below ``root``, their sizes and times of change, in the given order."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read(place: Path, name: str, key: str, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The entry, or None where there is none, or only a damaged one."""
    path = place / f"{name}.npy"
    try:
        about = json.loads((place / f"{name}.json").read_text())
        values = np.load(path, mmap_mode="r")
        whole = path.stat().st_size == values.offset + values.nbytes
        if whole and about["key"] == json.loads(key) and values.shape == shape and values.dtype == np.uint8:
            return values, about["extra"]
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        pass
    return None


def _make(
    place: Path, name: str, key: str, shape: tuple[int, ...], fill: Callable[[np.ndarray], dict[str, Any]]
) -> None:
    array, about = (place / f".{name}.{os.getpid()}.{kind}.tmp" for kind in ("npy", "json"))
    try:
        _allocate(array, shape)
        values = np.lib.format.open_memmap(array, mode="r+")
        extra = fill(values)
        values.flush()
        del values
        about.write_text(json.dumps({"key": json.loads(key), "extra": extra}))
        for file, final in ((array, f"{name}.npy"), (about, f"{name}.json")):  # the JSON last: it makes the entry
            _sync(file)
            os.replace(file, place / final)
        _sync(place)
    finally:
        array.unlink(missing_ok=True)
        about.unlink(missing_ok=True)


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """An array's file with all its blocks: a memory map on a disk that turns out full would end the process."""
    try:
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        size = np.prod(shape, dtype=np.int64) / 2**20
        raise ValueError(
            f"cache must be a folder with room for {size:.0f} MiB more, got {path.parent}: {error}"
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
