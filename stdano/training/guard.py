"""What keeps a run from losing work: Ctrl-C between steps, a check of the disk beforehand, a stop at NaN."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from pathlib import Path
from types import FrameType

from ..terminal import quoted


class Interrupted(Exception):
    """Ctrl-C: the run has saved its position in ``folder``. ``given``: its network is not one that settings name."""

    def __init__(self, folder: Path, command: str, given: bool = False) -> None:
        if given:
            super().__init__(f"interrupted; go on with the same network in Python: {resuming(folder, command)}")
        else:
            super().__init__(f"interrupted; go on with: stdano {command} --resume {quoted(folder)}")
        self.folder = folder


def resuming(folder: Path, command: str) -> str:
    """The call that goes on with a run whose network was given to it."""
    module = {"train": "training"}.get(command, command)
    return f"stdano.{module}.resume({str(folder)!r}, model=...)"


class Diverged(Exception):
    """The loss is not finite. ``rates`` are the firing rates of the layers at that step."""

    epoch: int
    step: int
    rates: dict[str, float]

    def __init__(self, what: str, loss: float, epoch: int, step: int, rates: dict[str, float], folder: Path) -> None:
        listed = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items()) or "unknown"
        super().__init__(
            f"{what} is {loss} in epoch {epoch}, step {step}; firing rates of the layers: {listed}. "
            f"{folder} holds the state before this epoch. A smaller lr, or 32-true precision, may help."
        )
        self.epoch, self.step, self.rates = epoch, step, rates


class Interrupt:
    """Turns the first Ctrl-C into a flag, so that no step is left half done; a second one stops at once."""

    def __init__(self) -> None:
        self.requested: bool = False
        self._main = threading.current_thread() is threading.main_thread()  # signals are set from there alone

    def __enter__(self) -> Interrupt:
        if self._main:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def check_new(folder: Path) -> None:
    """Raises ValueError unless a folder is empty or does not exist."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"out must be a new or empty folder, {folder} is not; go on with a run by --resume {quoted(folder)}"
        )


def check_disk(folder: Path, size: int) -> None:
    """Makes the folder and tries whether ``size`` bytes can be written in it.

    Raises:
        OSError: they cannot; the message says why.
    """
    trial = folder / f".trial-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(trial, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            elif shutil.disk_usage(folder).free < size:
                raise OSError("the disk is full")
    except OSError as error:
        raise OSError(
            f"out must be a folder in which {size / 2**20:.0f} MiB can be written, {folder} is not: {error}"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # where the folder could not be made
            trial.unlink(missing_ok=True)
