"""The command line: chooses the command, and turns exceptions into one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import torch

import stdano_kernels

from . import commands
from .processes import is_main_process

USAGE = """usage: stdano COMMAND [options]

  stdano demo        search, retrain, compare with plain neurons: digits, in minutes on a CPU
  stdano search      look for the neuron of each layer
  stdano train       train a network, with the neurons of a search, of the paper, or any
  stdano evaluate    test the network of a run; firing rates of its layers
  stdano ablate      compare choices of neurons over several seeds
  stdano compare-search
                     ask whether a search helps: against single neurons and random choices
  stdano report      runs on one page: curves, architectures, activity, cost, gradients, dynamics
  stdano presets     named settings, among them every experiment of the paper
  stdano info        versions, devices, and which backends work here and why

stdano COMMAND --help explains every option.
"""
COMMANDS = {
    "demo": commands.demo,
    "search": commands.search,
    "train": commands.train,
    "evaluate": commands.evaluate,
    "ablate": commands.ablate,
    "compare-search": commands.compare_search,
    "report": commands.report,
    "presets": commands.presets,
    "info": commands.info,
}
EXTRAS = {
    "app": ("jinja2", "lightning_fabric", "matplotlib", "rich", "sklearn", "torchvision", "tyro"),
    "events": ("tonic",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit status: 0; 1 if the loss became infinite or NaN; 2 for wrong arguments, missing packages, files that
        cannot be read or written, and too little memory; 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "" not in sys.path:
        sys.path.insert(0, "")  # neurons of one's own, by their names, from the folder that one is in
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"stdano {stdano_kernels.__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"stdano: command must be one of {', '.join(COMMANDS)}, got {arguments[0]!r}\n\n{USAGE}", file=sys.stderr)
        return 2
    return _run(arguments[0], arguments[1:])


def _run(command: str, arguments: list[str]) -> int:
    try:
        COMMANDS[command](arguments)
        return 0
    except SystemExit as ended:  # of the parser: help, or wrong arguments
        return int(ended.code or 0)
    except ModuleNotFoundError as error:
        if (advice := _advice(error)) is None:
            raise
        return _fail(command, advice, 2)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        return _fail(command, error, 2)
    except KeyboardInterrupt as interrupt:
        return _fail(command, str(interrupt) or "interrupted", 130)
    except Exception as error:
        if (advice := _limit(error)) is not None:
            return _fail(command, advice, 2)
        training = sys.modules.get("stdano.training")  # it needs the extra; without it none of its errors comes up
        if training is None or not isinstance(error, (training.Interrupted, training.Diverged)):
            raise
        status = 1 if isinstance(error, training.Diverged) else 130
        return _fail(command, error, status) if is_main_process() else status  # all processes have it


def _fail(command: str, message: object, status: int) -> int:
    process = "" if is_main_process() else f"process {os.environ.get('RANK', os.environ.get('LOCAL_RANK'))}: "
    line = " ".join(part.strip() for part in str(message).splitlines())
    print(f"stdano {command}: {process}{line}", file=sys.stderr)
    return status


def _limit(error: Exception) -> str | None:
    """What to do where this machine is too small; None for other errors."""
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return f"out of memory: a smaller batch-size, size, T or width, or a larger accumulate, needs less ({text})"
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return f"workers must be fewer here, or 0, for which batches are prepared by the process itself: {text}"
    return None


def _advice(error: ModuleNotFoundError) -> str | None:
    """What to install; None where the package is not one of the extras'."""
    if error.name is None:  # ours, with advice of its own
        return str(error)
    for extra, packages in EXTRAS.items():
        if error.name.partition(".")[0] in packages:
            return f"{error.name} is not installed; install what the command needs: pip install 'stdano[{extra}]'"
    return None
