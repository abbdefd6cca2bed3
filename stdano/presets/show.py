"""Presets as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from .preset import Preset


def overview(presets: Iterable[Preset]) -> str:
    """A line for each preset: name, neurons, what the paper reports, title."""
    rows = [("preset", "neurons", "accuracy %", "GPU days", "")]
    for preset in presets:
        neurons = preset.train.model.neurons + ("" if preset.verified or not preset.table else "?")
        rows.append((preset.name, neurons, _percent(preset), _days(preset), preset.title))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    note = "Accuracy and search cost are the paper's. ?: nothing else in the paper confirms the string."
    return "\n".join([*lines, "", note])


def details(preset: Preset) -> str:
    """All that is known of a preset: its settings for search and training, what the paper reports, assumptions."""
    neurons = preset.train.model.neurons
    facts = [("neurons", neurons or "not certain, e.g. " + ", ".join(preset.candidates))]
    if preset.table:
        facts += [
            ("", preset.note),
            ("paper", f"table {preset.table}; test accuracy {_percent(preset)} %, search {_days(preset)} GPU days"),
        ]
    lines = [f"{preset.name}: {preset.title}", "", *(f"{name:<12}{text}" for name, text in facts)]
    lines += ["", f"{'setting':<20}{'training':<20}search"]
    for part in dataclasses.fields(preset.search):
        training, search = getattr(preset.train, part.name, None), getattr(preset.search, part.name)
        for setting in dataclasses.fields(search):
            values = [_text(getattr(settings, setting.name, None)) for settings in (training, search)]
            if setting.name != "neurons":
                lines.append(f"{setting.name:<20}{values[0]:<20}{values[1]}")
    train = f"stdano train --preset {preset.name}" + ("" if neurons else f" --neurons {preset.candidates[0]}")
    if preset.assumptions:
        lines += ["", "What the paper leaves open:", *(f"  {text}" for text in preset.assumptions)]
    return "\n".join([*lines, "", f"stdano search --preset {preset.name}", train])


def _percent(preset: Preset) -> str:
    return "" if preset.accuracy is None else f"{100 * preset.accuracy:.2f}"


def _days(preset: Preset) -> str:
    return "" if preset.gpu_days is None else f"{preset.gpu_days:.2f}"


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return " ".join(value) if isinstance(value, tuple) else str(value)
