"""Which backends there are, why one is missing, and which one serves a tensor."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .toolkit import find_toolkit

F = TypeVar("F", bound=Callable[..., Any])
NAMES = ("reference", "cpu", "triton", "cuda")


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend works here, why or why not, and what it consists of."""

    available: bool
    reason: str
    details: dict[str, str] = field(default_factory=dict)


def _load_library(stem: str, why_missing: Callable[[], str]) -> str | None:
    """Loads compiled operators; the reason where that fails, None where they are there. A look at compilers and
    toolkits costs time, so it is taken only where they are not."""
    files = sorted(Path(__file__).parent.glob(f"{stem}.*so"))
    if not files:
        return why_missing()
    try:
        torch.ops.load_library(files[-1])
    except OSError as error:
        return f"{files[-1].name} cannot be loaded by torch {torch.__version__}: {error}. Build it again (pip install)."
    return None


_INSTALL = "install stdano again from its source folder (pip install -e .) and look at the build's output (-v)"


def _why_no_cpu_kernels() -> str:
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    missing = "" if compiler else "install a C++ compiler (g++), then "
    return f"the CPU kernels were not built: {missing}{_INSTALL}"


def _why_no_cuda_kernels() -> str:
    folder, why = find_toolkit(torch.version.cuda)
    if folder is not None:
        why = "at install no GPU was found, STDANO_CUDA was 0, or the build failed"
    return f"the CUDA kernels were not built: {why}. {'' if folder else 'With one, '}set STDANO_CUDA=1 and {_INSTALL}"


def _load_cuda_extension() -> str | None:
    if torch.version.hip is not None:
        return "this torch is built for ROCm, which the Triton kernels serve"
    if EXTENSION_ERROR is not None:
        return EXTENSION_ERROR
    if torch.version.cuda is None:
        return find_toolkit(None)[1]
    return _load_library("_C_cuda", _why_no_cuda_kernels)


# Settled at import, so that torch.compile meets constants.
EXTENSION_ERROR = _load_library("_C", _why_no_cpu_kernels)
CUDA_EXTENSION_ERROR = _load_cuda_extension()


def _triton_version() -> str:
    """The module's own word: distributions of it go by several names (pytorch-triton, triton-windows, ...)."""
    return str(importlib.import_module("triton").__version__)


@cache
def _load_triton() -> str | None:
    """Imports the Triton kernels, at their first use: that takes a while, and most processes never need them."""
    found = "Triton"
    try:
        found = f"Triton {_triton_version()}"
        numbers = re.match(r"Triton (\d+)\.(\d+)", found)
        if numbers and tuple(map(int, numbers.groups())) < _OLDEST_TRITON:
            return f"{found} is older than {'.'.join(map(str, _OLDEST_TRITON))}"
        importlib.import_module(f"{__package__}.triton.ops")
    except Exception as error:  # whatever a Triton that does not fit this machine raises
        if isinstance(error, ModuleNotFoundError) and error.name == "triton":
            return "Triton is not installed (pip install triton)"
        return f"{found} cannot be used here: {type(error).__name__}: {error}"
    return None


_OLDEST_TRITON = (3, 5)
_OLDEST_CAPABILITY = (7, 5)
_DEVICES = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda"}


def _architectures() -> tuple[str, str]:
    """The toolkit of the CUDA kernels, "13.0", and what it compiled for, "8.0, 8.6"."""
    toolkit, architectures = torch.ops.stdano.cuda_build().split("; ")
    return toolkit, ", ".join(f"{int(a) // 100}.{int(a) // 10 % 10}" for a in architectures.split(","))


@cache
def _device_error(index: int) -> str | None:
    """Why no GPU kernel runs on this CUDA device; a ROCm one is torch's "cuda" too, and has no such limit."""
    if torch.version.hip is not None:
        return None
    capability = torch.cuda.get_device_capability(index)
    if capability >= _OLDEST_CAPABILITY:
        return None
    name = torch.cuda.get_device_name(index)
    needed = ".".join(map(str, _OLDEST_CAPABILITY))
    return f"{name} has compute capability {capability[0]}.{capability[1]}; the kernels need {needed}"


@cache
def _code_error(index: int) -> str | None:
    """Why the driver takes no CUDA kernel of this build for this device. It is asked, because the list of
    architectures does not tell: later devices run earlier code or translate PTX, unless the driver is too old for it.
    """
    with torch._C._DisableTorchDispatch():  # a question, not one of the operations that modes look at
        error = torch.ops.stdano.cuda_code_error(index)
        if not error:
            return None
        toolkit, architectures = _architectures()
    major, minor = torch.cuda.get_device_capability(index)
    return (
        f"the CUDA kernels, built with CUDA {toolkit} for compute capability {architectures}, do not run on "
        f"{torch.cuda.get_device_name(index)} ({error}); build them with TORCH_CUDA_ARCH_LIST={major}.{minor}"
    )


def constant_when_traced(function: F) -> F:
    """torch.compiler.assume_constant_result, which would import the whole compiler together with this package."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_when_traced
def _missing(backend: str, index: int | None, float64: bool) -> str | None:
    """Why a backend does not serve tensors of its kind of device; None where it does."""
    if backend == "cpu":
        return EXTENSION_ERROR
    if backend == "cuda" and CUDA_EXTENSION_ERROR is not None:
        return CUDA_EXTENSION_ERROR
    if backend == "triton":
        if float64:
            return "the Triton kernels take float32, float16 and bfloat16, not float64"
        if (error := _load_triton()) is not None:
            return error
    index = torch.cuda.current_device() if index is None else index
    error = _device_error(index)
    return _code_error(index) if error is None and backend == "cuda" else error


def _absent(backend: str) -> str | None:
    """Why this machine has no such backend, as far as can be told without initialising CUDA."""
    if backend == "cpu":
        return EXTENSION_ERROR
    if backend == "cuda" and CUDA_EXTENSION_ERROR is not None:
        return CUDA_EXTENSION_ERROR
    return None if torch.cuda.is_available() else _NO_GPU


_NO_GPU = "there is no GPU that torch can use (torch.cuda.is_available() is False)"


def backends() -> dict[str, BackendStatus]:
    """The state of every backend on this machine, by name: ``reference``, ``cpu``, ``triton``, ``cuda``.

    Imports Triton, and where there is a GPU asks its driver, which initialises CUDA in this process: processes that
    are forked afterwards cannot use CUDA. Nothing else in stdano does so before a tensor on a GPU is handed to it.
    """
    if EXTENSION_ERROR is None:
        level = torch.ops.stdano.cpu_capability()
        details = {"instruction set": level, "threads": str(torch.get_num_threads())}
        cpu = BackendStatus(True, "compiled C++ kernels", details)
    else:
        cpu = BackendStatus(False, EXTENSION_ERROR)
    return {
        "reference": BackendStatus(True, "plain PyTorch, for every device", {"torch": torch.__version__}),
        "cpu": cpu,
        "triton": _device_status("triton"),
        "cuda": _device_status("cuda"),
    }


def _device_status(name: str) -> BackendStatus:
    details = {}
    if name == "cuda" and CUDA_EXTENSION_ERROR is None:
        toolkit, architectures = _architectures()
        details = {"toolkit": toolkit, "architectures": architectures}
    elif name == "triton":
        with suppress(Exception):  # _missing says what is wrong, where there is a GPU
            details = {"triton": _triton_version()}
    error = _absent(name) or _missing(name, None, False)
    if error is not None:
        return BackendStatus(False, error, details)
    what = "compiled CUDA kernels" if name == "cuda" else "Triton kernels, compiled at their first use"
    return BackendStatus(True, what, details)


# Numbers in x from which on the device's time counts, and not the host's. Measured on an H200: Triton's kernels need
# 0.5 to 0.9 times as long as CUDA's, and the host for a call of them about twice as long.
_LARGE = 1 << 22


@constant_when_traced
def _best(device: str, index: int | None, float64: bool, large: bool = False) -> str:
    """The fastest backend for such tensors; where that is the reference, a warning says why, once."""
    reasons = []
    for name in ("cpu", "triton", "cuda") if large else ("cpu", "cuda", "triton"):
        if _DEVICES[name] != device:
            continue
        reason = _missing(name, index, float64)
        if reason is None:
            return name
        reasons.append(reason)
    if device != "meta":
        warn_once(
            f"tensors on {device}", "; ".join(dict.fromkeys(reasons)) or f"stdano has no kernels for {device} devices"
        )
    return "reference"


def serves(backend: str, x: Tensor) -> bool:
    """Whether a backend runs on x's device, and in its dtype."""
    device, index, float64 = x.device.type, x.device.index, x.dtype == torch.float64
    return _DEVICES[backend] == device and _missing(backend, index, float64) is None


@cache
def warn_once(device: str, reason: str) -> None:
    """Says that the reference runs, which is slow, and why; ``device``: for what."""
    warnings.warn(f"stdano runs the reference backend, which is slow, for {device}: {reason}", RuntimeWarning, 6)


def select(backend: str, x: Tensor) -> str:
    """The backend for ``x``: an explicit one or an error; for ``"auto"`` the fastest, the reference if none."""
    device, index, float64 = x.device.type, x.device.index, x.dtype == torch.float64
    if backend == "auto":
        if device == "cpu" and EXTENSION_ERROR is None:  # without a call that torch.compile would have to guard
            return "cpu"
        return _best(device, index, float64, True if x.numel() >= _LARGE else False)  # noqa: SIM210, torch.compile guards a branch
    if backend == "reference":
        return backend
    needed = _DEVICES[backend]
    reason = _missing(backend, index, float64) if device == needed else _absent(backend)
    if reason is not None:
        raise RuntimeError(f'backend="{backend}" is not available here: {reason}')
    if device != needed:
        raise ValueError(f'backend="{backend}" needs x on a {needed} device, got {x.device}; use backend="auto"')
    return backend
