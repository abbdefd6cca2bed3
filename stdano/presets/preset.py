"""A preset: settings by name."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import SearchSettings, TrainSettings


@dataclass(frozen=True)
class Preset:
    """Settings of a search and of the training that follows, by name.

    Attributes:
        name: as on the command line.
        title: data, network and time steps, or what it is for.
        train: settings of a training run. ``train.model.neurons`` is empty where the paper's digit string is not
            certain; :meth:`check` says so.
        search: settings of the search that looks for the neurons.
        table: of the paper, whose row this is; 0: the preset is our own.
        status: how the digit string is known: ``"confirmed"``, ``"repaired"``, ``"unconfirmed"`` or ``"open"``; empty
            for our own presets.
        note: the same in words.
        candidates: where it is open, the strings that it can be, the likeliest first.
        accuracy: test accuracy that the paper gives, from 0 to 1.
        gpu_days: the paper's search cost, in days of an RTX 3090.
        assumptions: what the paper leaves open, by the setting that it is about.
    """

    name: str
    title: str
    train: TrainSettings
    search: SearchSettings
    table: int = 0
    status: str = ""
    note: str = ""
    candidates: tuple[str, ...] = ()
    accuracy: float | None = None
    gpu_days: float | None = None
    assumptions: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether a second source in the paper confirms the digit string."""
        return self.status in ("confirmed", "repaired")

    def check(self, neurons: str) -> None:
        """Raises ValueError if ``neurons`` is empty, and names the strings that the paper may mean."""
        if not neurons:
            raise ValueError(
                f"neurons must be given for preset {self.name}, e.g. one of {', '.join(self.candidates)}: {self.note}"
            )
