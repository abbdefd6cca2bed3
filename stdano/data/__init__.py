"""Data sets, as tensors. Each loader returns an :class:`ImageData`."""

from __future__ import annotations

from collections.abc import Callable

from .digits import ImageData, load_digits

DATASETS: dict[str, Callable[[], ImageData]] = {"digits": load_digits}

__all__ = ["DATASETS", "ImageData", "load_digits"]
