"""Settings of a training run, and presets: named settings that the command line starts from."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

from .data import DATASETS


@dataclass(frozen=True)
class TrainSettings:
    """What a training run depends on. :meth:`check` says what is allowed."""

    dataset: str = "digits"
    """data set: digits (scikit-learn's 1,797 handwritten digits, 8 x 8 pixels)"""
    neuron: str = "LLIF"
    """spiking neuron of every layer: LIF, LLIF or SLIF"""
    T: int = 4
    """time steps"""
    tau: float = 2.0
    """time constant of the neurons, in time steps"""
    decay: str = "exp"
    """decay of the potential in a step: exp (exp(-1/tau)) or linear (1 - 1/tau)"""
    surrogate_function: str = "triangle"
    """surrogate of the spike's derivative, see stdano_kernels.SURROGATES"""
    alpha: float = 1.0
    """sharpness of the surrogate"""
    channels: tuple[int, ...] = (32, 32, 64)
    """output channels of the convolution layers"""
    dropout: float = 0.0
    """share of features dropped before the last layer, the same for all time steps"""
    epochs: int = 15
    """passes over the training images"""
    batch_size: int = 64
    """images a step"""
    lr: float = 0.1
    """learning rate at the start; a cosine takes it to 0"""
    momentum: float = 0.9
    """momentum of SGD"""
    weight_decay: float = 5e-4
    """weight decay of SGD"""
    lam: float = 0.05
    """weight of the regularising term of the TET loss (eq. 59 of the paper)"""
    shift: int = 1
    """largest random shift of a training image, in pixels; 0 for none"""
    seed: int = 0
    """seed of weights, order and augmentation"""
    backend: str = "auto"
    """backend of the neurons, see stdano info"""
    accelerator: str = "auto"
    """cpu, cuda or auto"""
    precision: str = "32-true"
    """32-true, bf16-mixed or 16-mixed"""
    threads: int = 0
    """CPU threads; 0 for PyTorch's choice, which the run's settings then record"""

    def check(self) -> None:
        """Raises ValueError where a value is not allowed; names it."""
        choices = {
            "dataset": tuple(DATASETS),
            "neuron": ("LIF", "LLIF", "SLIF"),
            "accelerator": ("auto", "cpu", "cuda"),
            "precision": ("32-true", "bf16-mixed", "16-mixed"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name, lowest in {"T": 1, "epochs": 1, "batch_size": 1, "shift": 0, "seed": 0, "threads": 0}.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be {lowest} or more, got {getattr(self, name)}")
        for name, limit in {"momentum": 1.0, "weight_decay": math.inf, "lam": 1.0, "dropout": 1.0}.items():
            if not 0 <= getattr(self, name) < limit:
                raise ValueError(f"{name} must be at least 0 and below {limit:g}, got {getattr(self, name)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr must be a finite number above 0, got {self.lr}")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels must be one or more numbers of 1 or more, got {self.channels}")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, path: Path) -> TrainSettings:
        """The settings in a file that :meth:`to_json` wrote; ValueError where it is something else."""
        try:
            values = json.loads(path.read_text())
            values["channels"] = tuple(values["channels"])
            return cls(**values)
        except (OSError, TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} must hold the settings of a run, as JSON: {error}") from error


# One thread: the network is small, and two that wait for each other beside other programs take ten times as long.
PRESETS = {"digits": TrainSettings(threads=1)}
