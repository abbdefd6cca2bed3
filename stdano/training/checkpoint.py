"""Checkpoints, which survive a crash."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import write_atomically


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Saves a dictionary of tensors, numbers, strings, and lists and dictionaries of them."""
    write_atomically(path, lambda file: torch.save(state, file))


def load_checkpoint(path: Path, names: Sequence[str] = (), advice: str = "") -> dict[str, Any]:
    """Loads what :func:`save_checkpoint` saved, on the CPU; executes no code from the file.

    Args:
        path: the file.
        names: what has to be in it.
        advice: what to do without it, for the error.

    Raises:
        ValueError: there is no checkpoint at ``path``, or it is damaged.
        OSError: the file cannot be read.
    """
    advice = f"; {advice}" if advice else ""
    if not path.is_file():
        raise ValueError(f"{path} must be a checkpoint, but there is no such file{advice}")
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about what it meets in another file
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # of torch, pickle, zipfile or the system, whatever they meet
            raise ValueError(f"{path} must be a checkpoint, but is damaged or another file{advice}") from error
    if not isinstance(state, dict) or not set(names) <= set(state):
        raise ValueError(f"{path} must be a checkpoint with {', '.join(names)}, but is another file{advice}")
    return state
