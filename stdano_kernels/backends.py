"""Which backends there are, why one is missing, and which one serves a tensor."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

NAMES = ("reference", "cpu", "triton", "cuda")


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend works here, why or why not, and what it consists of."""

    available: bool
    reason: str
    details: dict[str, str] = field(default_factory=dict)


def _load_extension() -> str | None:
    """Loads the compiled operators; the reason where that fails, None where they are there."""
    files = sorted(Path(__file__).parent.glob("_C.*so"))
    if not files:
        compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
        missing = "" if compiler else "install a C++ compiler (g++), then "
        return (
            "the CPU kernels were not built: "
            f"{missing}install stdano again from its source folder (pip install -e .) and look at the build's output "
            "(-v)"
        )
    try:
        torch.ops.load_library(files[-1])
    except OSError as error:
        return f"{files[-1].name} cannot be loaded by torch {torch.__version__}: {error}. Build it again (pip install)."
    return None


# Settled at import, so that torch.compile meets a constant.
EXTENSION_ERROR = _load_extension()


def backends() -> dict[str, BackendStatus]:
    """The state of every backend on this machine, by name: ``reference``, ``cpu``, ``triton``, ``cuda``."""
    if EXTENSION_ERROR is None:
        level = torch.ops.stdano.cpu_capability()
        details = {"instruction set": level, "threads": str(torch.get_num_threads())}
        cpu = BackendStatus(True, "compiled C++ kernels", details)
    else:
        cpu = BackendStatus(False, EXTENSION_ERROR)
    return {
        "reference": BackendStatus(True, "plain PyTorch, for every device", {"torch": torch.__version__}),
        "cpu": cpu,
        "triton": BackendStatus(False, f"stdano {_version()} has no Triton kernels yet"),
        "cuda": BackendStatus(False, f"stdano {_version()} has no CUDA kernels yet"),
    }


def _version() -> str:
    return sys.modules[__package__].__version__


@cache
def _warn_once(device: str, reason: str) -> None:
    warnings.warn(
        f"stdano runs the reference backend, which is slow, for tensors on {device}: {reason}", RuntimeWarning, 4
    )


def select(backend: str, x: Tensor) -> str:
    """The backend for ``x``: an explicit one or an error; for ``"auto"`` the fastest, the reference if none."""
    device = x.device.type
    if backend == "auto":
        if device == "cpu":
            if EXTENSION_ERROR is None:
                return "cpu"
            reason = EXTENSION_ERROR
        else:
            reason = f"stdano {_version()} has kernels for the CPU alone"
        if device != "meta" and not torch.compiler.is_compiling():
            _warn_once(device, reason)
        return "reference"
    if backend == "reference":
        return backend
    status = backends()[backend]
    if not status.available:
        raise RuntimeError(f'backend="{backend}" is not available here: {status.reason}')
    if device != backend:
        raise ValueError(f'backend="{backend}" needs x on a {backend} device, got {x.device}; use backend="auto"')
    return backend
