from __future__ import annotations
from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    nda: bool = False
