"""The command line: ``stdano train`` and ``stdano info``."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

import stdano_kernels

from .presets import PRESETS, TrainSettings

USAGE = """usage: stdano COMMAND [options]

  stdano train    train a spiking network; --help explains every option
  stdano info     versions, devices, and which backends work here and why
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit status: 0, 2 for wrong arguments, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"train": train, "info": info}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"stdano {stdano_kernels.__version__}")
        return 0
    if arguments[0] not in commands:
        print(f"stdano: command must be one of {', '.join(commands)}, got {arguments[0]!r}\n\n{USAGE}", file=sys.stderr)
        return 2
    return commands[arguments[0]](arguments[1:])


@dataclass(frozen=True)
class TrainOptions:
    """Trains a spiking network; every run has a folder of its own with settings, metrics, curve and checkpoint."""

    preset: str = "digits"
    """settings to start from, which the options below override: digits"""
    resume: Path | None = None
    """folder of a run to go on with, from its last checkpoint and with its settings"""
    out: Path | None = None
    """folder of the run; default runs/PRESET-DATE-TIME"""
    settings: TrainSettings = PRESETS["digits"]


def train(arguments: list[str]) -> int:
    """``stdano train``: trains, or goes on with a run."""
    try:
        import tyro

        from .training import loop
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed; install what training needs: pip install 'stdano[app]'")

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="digits")
    preset = first.parse_known_args(arguments)[0].preset
    if preset not in PRESETS:
        return _fail(f"--preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    default = TrainOptions(preset=preset, settings=PRESETS[preset])
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands)
    options = tyro.cli(TrainOptions, args=arguments, default=default, prog="stdano train", config=config)
    try:
        if options.resume is None:
            folder = options.out or Path("runs") / f"{preset}-{datetime.now():%Y%m%d-%H%M%S}"
            loop.start(options.settings, folder)
        elif len(arguments) > (1 if arguments[0].startswith("--resume=") else 2):
            return _fail(f"--resume takes every setting from the run; it goes alone, got {' '.join(arguments)}")
        else:
            loop.resume(options.resume)
    except (ValueError, TypeError) as error:
        return _fail(error)
    except loop.Interrupted as interrupted:
        return _fail(interrupted, 130)
    return 0


def _fail(message: object, status: int = 2) -> int:
    print(f"stdano train: {message}", file=sys.stderr)
    return status


def info(arguments: list[str]) -> int:
    """``stdano info``: versions, devices and backends."""
    argparse.ArgumentParser(prog="stdano info", description="Versions, devices and backends.").parse_args(arguments)
    rows = [("stdano", stdano_kernels.__version__), ("python", f"{platform.python_version()}, {platform.platform()}")]
    for package in ("torch", "triton", "numpy", "torchvision", "lightning-fabric", "spikingjelly"):
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
    for name, value in rows:
        print(f"{name:<18}{value}")
    return 0


def processor() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
