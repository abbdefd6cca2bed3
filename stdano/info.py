"""Versions, devices and backends."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

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
)


def info() -> list[tuple[str, str]]:
    """Names and values: versions, processor, devices, and which backends work here and why. Needs no extra."""
    rows = [("stdano", stdano_kernels.__version__), ("python", f"{platform.python_version()}, {platform.platform()}")]
    for package in PACKAGES:
        try:
            rows.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((package, "not installed"))
    rows.append(("processor", f"{processor()}, {torch.get_num_threads()} threads"))
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    rows.append(("cuda devices", ", ".join(devices) or "none"))
    for name, status in stdano_kernels.backends().items():
        details = "".join(f"; {key}: {value}" for key, value in status.details.items())
        rows.append((f"backend {name}", f"{'available' if status.available else 'missing'}: {status.reason}{details}"))
    return rows


def processor() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
