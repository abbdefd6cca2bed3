"""Versions, devices and backends."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch

import stdano_kernels

PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "torchvision",
    "lightning-fabric",
    "scikit-learn",
    "tonic",
    "spikingjelly",
    "nir",
    "nirtorch",
    "snntorch",
    "sinabs",
    "onnx",
    "onnxruntime",
)
# What stdano reads of the environment, beside what begins with STDANO_.
VARIABLES = ("CXX", "CUDA_HOME", "CUDA_PATH", "XDG_CACHE_HOME")


def facts() -> dict[str, Any]:
    """What a bug report needs, in values that JSON has: ``stdano``, ``python``, ``platform`` and ``processor`` (text),
    ``threads`` (a number), ``packages`` (a version, or None, by name), ``cuda_devices`` (names), ``backends``
    (``available``, ``reason`` and ``details`` by name) and ``environment`` (variables that stdano reads and that are
    set). Needs no extra."""
    names = sorted({*VARIABLES, *(name for name in os.environ if name.startswith("STDANO_"))})
    return {
        "stdano": stdano_kernels.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "packages": {package: _version(package) for package in PACKAGES},
        "cuda_devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "backends": {name: dataclasses.asdict(status) for name, status in stdano_kernels.backends().items()},
        "environment": {name: os.environ[name] for name in names if name in os.environ},
    }


def info() -> list[tuple[str, str]]:
    """The same as a table: names and values."""
    found = facts()
    rows = [("stdano", found["stdano"]), ("python", f"{found['python']}, {found['platform']}")]
    rows += [(package, version or "not installed") for package, version in found["packages"].items()]
    rows.append(("processor", f"{found['processor']}, {found['threads']} threads"))
    rows.append(("cuda devices", ", ".join(found["cuda_devices"]) or "none"))
    for name, status in found["backends"].items():
        details = "".join(f"; {key}: {value}" for key, value in status["details"].items())
        state = "available" if status["available"] else "missing"
        rows.append((f"backend {name}", f"{state}: {status['reason']}{details}"))
    return rows + list(found["environment"].items())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
