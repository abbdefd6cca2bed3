"""What every data set is turned into: bytes in memory or in a memory-mapped file, and labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Samples:
    """One part of a data set.

    ``values`` is uint8, images ``[N, C, H, W]`` or event frames ``[N, T, C, H, W]``, an array or a read-only memory
    map; ``labels`` is int64 ``[N]`` with values from 0.
    """

    values: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSource:
    """A data set, split into training and test.

    A network's input is ``(values / 255 - mean) / std`` for each channel; with ``binary``, values above 0 count as 255.

    Attributes:
        name: as on the command line.
        train, test: the two parts.
        classes: names of the classes; their number is ``num_classes``.
        mean, std: of each channel.
        binary: whether a pixel only says that there is an event.
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    binary: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def temporal(self) -> bool:
        """Whether samples are sequences of frames; images are the input of every time step."""
        return self.train.values.ndim == 5

    @property
    def in_channels(self) -> int:
        return self.train.values.shape[-3]

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.train.values.shape[-1]

    def fingerprint(self) -> str:
        """64 hexadecimal digits that tell whether two runs saw the same data: labels, shapes, normalisation, and 4,096
        evenly spread samples of each part."""
        digest = hashlib.sha256(repr((self.mean, self.std, self.binary, self.classes)).encode())
        for part in (self.train, self.test):
            stride = -(-len(part) // 4096)
            digest.update(repr(part.values.shape).encode())
            digest.update(np.ascontiguousarray(part.labels, dtype=np.int64).tobytes())
            digest.update(np.ascontiguousarray(part.values[::stride]).tobytes())
        return digest.hexdigest()
