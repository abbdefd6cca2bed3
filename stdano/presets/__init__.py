"""Presets: settings by name, of the paper's experiments and of small ones for CPUs."""

from __future__ import annotations

import difflib

from .own import own_presets
from .paper import paper_presets
from .preset import Preset
from .show import details, overview

__all__ = ["Preset", "details", "get_preset", "overview", "presets"]


def presets() -> dict[str, Preset]:
    """All presets by name: our own, then one for each row of the paper's tables 3, 6 and 8, such as
    ``"cifar10-resnet18-T4"`` or ``"dvs-cifar10-vgg11-T10-nda"``."""
    return {preset.name: preset for preset in (*own_presets(), *paper_presets())}


def get_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: there is none.
    """
    known = presets()
    if name not in known:
        similar = difflib.get_close_matches(name, known, n=4, cutoff=0.5) or list(known)[:1]
        raise ValueError(f"preset must be one that stdano presets lists, such as {', '.join(similar)}; got {name!r}")
    return known[name]
