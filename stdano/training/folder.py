"""The checkpoints in the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..settings import SETTINGS
from ..terminal import quoted
from .checkpoint import load_checkpoint
from .guard import resuming

LAST, BEST = "last.pt", "best.pt"


def last_state(folder: Path, command: str, model: nn.Module | None) -> dict[str, Any] | None:
    """The last checkpoint of a run that is to go on; None if the run was killed before the first one.

    Args:
        folder: of the run.
        command: the one that began it.
        model: the network, where one is given.

    Raises:
        ValueError: the checkpoint is damaged, or the run needs a network and none is given.
    """
    if not (folder / LAST).exists():
        return None
    names = ("model", "optimiser", "schedule", "precision", "progress", "fingerprint")
    anew = f"begin anew with: stdano {command} --config {quoted(folder / SETTINGS)}"
    state = load_checkpoint(folder / LAST, names, anew)
    if state.get("given") and model is None:
        raise ValueError(f"{given_network(folder, state)}; go on in Python: {resuming(folder, command)}")
    return state


def given_network(folder: Path, state: dict[str, Any]) -> str:
    """That a run needs its network once more, for errors."""
    return f"{folder} has trained a network of its own, {state['given']}, which no settings name"
