"""Which candidate a layer gets by what its removal does (Wang et al., ICLR 2021, "Rethinking architecture selection in
differentiable NAS"), instead of by the largest alpha.

When the search is over, layers are decided one after the other, in an order that the seed gives. A layer gets the
candidate without which the loss on the half for alpha is highest; the others are removed, and the weights are tuned
before the next layer's turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from .architect import super_neurons


class Perturbation:
    """The decisions so far.

    Args:
        model: has super neurons, see :func:`stdano.search.to_super`.
        seed: of the order of the layers.

    Attributes:
        order: names of the layers, in the order in which they are decided.
        began: after how many epochs the first one was; None before.
        losses: of each layer that is decided, the loss without each of its candidates.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.neurons = super_neurons(model)
        names = list(self.neurons)
        self.order = [names[k] for k in np.random.default_rng((seed, len(names))).permutation(len(names))]
        self.began: int | None = None
        self.losses: dict[str, list[float]] = {}

    @property
    def done(self) -> bool:
        return len(self.losses) == len(self.order)

    def decide(self, losses_of: Callable[[list[Callable[[], None]]], list[float]]) -> None:
        """Decides the next layer.

        Args:
            losses_of: given a function for each candidate that removes it alone, the loss after each.
        """
        name = self.order[len(self.losses)]
        neuron = self.neurons[name]

        def without(candidate: str) -> Callable[[], None]:
            return lambda: neuron.keep(*(other for other in neuron.neurons if other != candidate))

        losses = losses_of([without(candidate) for candidate in neuron.neurons]) if len(neuron.neurons) > 1 else [0.0]
        self._set(name, losses)

    def _set(self, name: str, losses: list[float]) -> None:
        self.losses[name] = losses
        self.neurons[name].keep(self.neurons[name].neurons[losses.index(max(losses))])

    def by_layer(self) -> list[list[float]]:
        """The losses of all layers, in order of execution."""
        return [self.losses[name] for name in self.neurons]

    def state_dict(self) -> dict[str, Any]:
        return {"began": self.began, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.began = state["began"]
        for name, losses in state["losses"].items():
            self._set(name, losses)
