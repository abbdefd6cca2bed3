"""What a search has found: a neuron for each layer, how it was decided, and what it cost."""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..files import write_atomically
from ..nodes.candidates import check_fingerprints, fingerprints, joined, names_in
from ..settings import SearchSettings, to_json
from .architect import alphas, super_neurons


def softmax(alpha: Sequence[float]) -> list[float]:
    """The share of each candidate."""
    largest = max(alpha)
    terms = [math.exp(value - largest) for value in alpha]
    return [term / sum(terms) for term in terms]


def entropy(alpha: Sequence[float]) -> float:
    """Of the softmax of alpha, in nats: from 0 (one candidate has it all) to log(K) (all have the same share)."""
    return -sum(share * math.log(share) for share in softmax(alpha) if share > 0)


def entropies(model: nn.Module) -> list[float]:
    """The :func:`entropy` of each super neuron, in order of execution."""
    return [entropy(alpha.tolist()) for alpha in alphas(model).values()]


def chosen(model: nn.Module) -> str:
    """The candidate with the largest share in each super neuron, in order of execution: digits (0 LIF, 1 LLIF, 2 SLIF)
    where all are the paper's, else names between commas."""
    return joined(neuron.choice() for neuron in super_neurons(model).values())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "list[list[float]]": lambda value: (
        isinstance(value, list) and all(isinstance(row, list) and all(map(_is_number, row)) for row in value)
    ),
    "dict[str, str]": lambda value: isinstance(value, dict) and all(isinstance(text, str) for text in value.values()),
    "dict[str, Any]": lambda value: isinstance(value, dict),
}


@dataclass(frozen=True)
class Architecture:
    """What a search has found. Layers are in order of execution.

    Attributes:
        neurons: a neuron a layer: digits (0 LIF, 1 LLIF, 2 SLIF) where all are the paper's, else the names of
            candidates, with commas between them.
        layers: names of the super neurons in the model.
        candidates: names of the neurons in the order of each alpha.
        alphas: the architecture parameters, a list a layer.
        model: name of the network; of its class, where it was given to the search.
        T, dataset: time steps and data set, as in the settings.
        data_fingerprint: of the data, see :meth:`stdano.data.DataSource.fingerprint`.
        device_hours: hours of training and testing times the number of devices.
        epochs: how many there were.
        test_accuracy: of the network of super neurons after the last one, from 0 to 1.
        settings: all settings of the search, as in settings.json.
        selection: how it was decided: ``"alpha"``, the candidate with the largest one; or ``"perturbation"``, the one
            whose removal hurts most.
        losses: with ``"perturbation"`` for each layer the loss without each candidate; else empty.
        fingerprints: of the candidates' declarations that do not come with stdano, by name.

    Raises:
        ValueError: neurons, layers, alphas, losses and candidates contradict each other.
    """

    neurons: str
    layers: list[str]
    candidates: list[str]
    alphas: list[list[float]]
    model: str
    T: int
    dataset: str
    data_fingerprint: str
    device_hours: float
    epochs: int
    test_accuracy: float
    settings: dict[str, Any]
    selection: str = "alpha"
    losses: list[list[float]] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names, chosen = self.candidates, names_in(self.neurons) if self.neurons else []
        if not names or len(set(names)) != len(names):
            raise ValueError(f"candidates must be one or more different neurons, got {names}")
        if self.selection not in ("alpha", "perturbation"):
            raise ValueError(f"selection must be alpha or perturbation, got {self.selection!r}")
        scores, what = (self.losses, "losses") if self.selection == "perturbation" else (self.alphas, "alphas")
        count = len(self.layers)
        if not len(chosen) == len(self.alphas) == len(scores) == count:
            raise ValueError(
                f"neurons, alphas and losses must have one entry for each of {count} layers, got {len(chosen)} "
                f"neurons, {len(self.alphas)} alphas and {len(self.losses)} losses"
            )
        for rows, kind in ((self.alphas, "alphas"), (self.losses, "losses")):
            for layer, row in zip(self.layers, rows, strict=False):
                if len(row) != len(names) or not all(map(math.isfinite, row)):
                    raise ValueError(f"{kind} must be {len(names)} finite numbers a layer, got {row} for {layer}")
        for layer, name, row in zip(self.layers, chosen, scores, strict=True):
            largest = names[row.index(max(row))]
            if name != largest:
                raise ValueError(
                    f"neurons must have the candidate with the largest of {what}, {largest} for {layer}, got {name}"
                )

    @property
    def weights(self) -> list[list[float]]:
        """The share of each candidate, a list a layer: the softmax of alpha."""
        return [softmax(alpha) for alpha in self.alphas]

    @property
    def by_alpha(self) -> str:
        """The neurons that the largest alphas choose, whatever decided."""
        return joined(self.candidates[alpha.index(max(alpha))] for alpha in self.alphas)

    @property
    def entropies(self) -> list[float]:
        """The :func:`entropy` of each layer."""
        return [entropy(alpha) for alpha in self.alphas]

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        settings: SearchSettings,
        fingerprint: str,
        device_hours: float,
        epochs: int,
        test_accuracy: float,
        name: str | None = None,
        losses: list[list[float]] | None = None,
    ) -> Architecture:
        """Reads it from a network of super neurons. ``name`` is the network's, by default that of the settings;
        ``losses`` are those of the selection by perturbation.

        Raises:
            ValueError: the network has none, or their candidates differ.
        """
        neurons = super_neurons(model)
        kinds = {neuron.neurons for neuron in neurons.values()}
        if len(kinds) != 1:
            raise ValueError(f"model must have super neurons, all of the same candidates, got {sorted(kinds)}")
        return cls(
            neurons=chosen(model),
            layers=list(neurons),
            candidates=list(kinds.pop()),
            alphas=[neuron.alpha.tolist() for neuron in neurons.values()],
            model=settings.model.model if name is None else name,
            T=settings.model.T,
            dataset=settings.data.data,
            data_fingerprint=fingerprint,
            device_hours=device_hours,
            epochs=epochs,
            test_accuracy=test_accuracy,
            settings=json.loads(to_json(settings)),
            selection="perturbation" if losses else "alpha",
            losses=losses or [],
            fingerprints=fingerprints(type(neuron) for layer in neurons.values() for neuron in layer.candidates),
        )

    def save(self, path: Path) -> None:
        """Writes it as JSON; a file that is there is replaced once all is written."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """Reads what :meth:`save` wrote.

        Raises:
            ValueError: the file is not there, or holds something else; or the declaration of one of its neurons cannot
                be imported, or has changed since.
        """
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} must hold the result of a search, as JSON: {error}") from error
        names = [one.name for one in dataclasses.fields(cls)]
        if isinstance(values, dict):  # older files have none of these
            for name, empty in (("selection", "alpha"), ("losses", []), ("fingerprints", {})):
                values.setdefault(name, empty)
        if not isinstance(values, dict) or set(values) != set(names):
            given = ", ".join(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"{path} must hold the result of a search, an object with {', '.join(names)}; got {given}")
        for one in dataclasses.fields(cls):
            if not _KINDS[str(one.type)](values[one.name]):
                raise ValueError(f"{path}: {one.name} must be {one.type}, got {reprlib.repr(values[one.name])}")
        try:
            found = cls(**values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        check_fingerprints(found.fingerprints, path)
        return found
