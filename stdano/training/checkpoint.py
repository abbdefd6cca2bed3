"""Files that survive a crash: written under a temporary name, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Calls ``write`` with an open file; ``path`` is replaced only once all of it is on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Saves a dictionary of tensors, numbers, strings, and lists and dictionaries of them."""
    write_atomically(path, lambda file: torch.save(state, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads what :func:`save_checkpoint` saved, on the CPU; executes no code from the file.

    Raises:
        ValueError: there is no checkpoint at ``path``.
    """
    if not path.is_file():
        raise ValueError(f"{path} must be a checkpoint, but there is no such file")
    return torch.load(path, map_location="cpu", weights_only=True)
