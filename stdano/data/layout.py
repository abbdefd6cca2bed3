"""Which folders are the parts of a data set, and which folder was meant where another one was named."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .files import contents

_NAMES = {"train": "train(ing)?", "test": "test(ing)?", "validation": "val(id(ation)?)?"}
_LOOKED_AT = 100  # folders of a level, which in the worst case are many thousand classes


def part_of(name: str) -> str | None:
    """The part that a folder of this name is, in any case: "train", "test" or "validation"; None where it is none."""
    return next((part for part, names in _NAMES.items() if re.fullmatch(f"{names}([-_ ]?set)?", name, re.I)), None)


def parts_of(folder: Path) -> dict[str, Path]:
    """The parts that a folder holds, by :func:`part_of`.

    Raises:
        ValueError: it cannot be read, or two folders are called like the same part.
    """
    found: dict[str, Path] = {}
    try:
        folders, _ = contents(folder)
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error}") from error
    for place in folders:
        part = part_of(place.name)
        if part is not None and part in found:
            raise ValueError(f"{folder} must have one folder for each part, got {found[part].name} and {place.name}")
        if part is not None:
            found[part] = place
    return found


def meant(path: Path) -> str:
    """How an error about ``folder:path`` ends: with the folder that was probably meant, or with nothing."""
    own = path.absolute()
    below, above = _below(own), own.parents[:2]
    whole = [place for place in (*below, *above) if _is_whole(place)]
    if not whole and not kinds(own):
        whole = [place for place in below if sum(map(_has_files, _folders(place))) > 1]
        whole += [place for place in above[:1] if _has_files(own) and sum(map(_has_files, _folders(place))) > 1]
    if not whole:
        return ""
    return f"; folder:{whole[0] if path.is_absolute() else os.path.relpath(whole[0])} is probably meant"


def _below(folder: Path) -> list[Path]:
    """Folders in a folder, then those in these."""
    first = _folders(folder)
    return [*first, *(place for outer in first for place in _folders(outer))]


def _folders(folder: Path) -> list[Path]:
    try:
        return contents(folder)[0][:_LOOKED_AT]
    except OSError:
        return []


def _has_files(folder: Path) -> bool:
    try:
        return bool(contents(folder)[1])
    except OSError:
        return False


def kinds(folder: Path) -> set[str]:
    """Which parts a folder holds; none where it cannot be read or has two of a kind."""
    try:
        return set(parts_of(folder))
    except ValueError:
        return set()


def _is_whole(folder: Path) -> bool:
    return "train" in (parts := kinds(folder)) and len(parts) > 1
