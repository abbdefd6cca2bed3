"""What the scripts' command lines share."""

from __future__ import annotations

import argparse

import torch

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def check_device(parser: argparse.ArgumentParser, device: str) -> None:
    """Ends the program where --device names a GPU and there is none."""
    if device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {device}: torch finds no GPU (torch.cuda.is_available() is False)")
