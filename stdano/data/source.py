"""What every data set is turned into: bytes in memory or in a memory-mapped file, and labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
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

    def none(self) -> Samples:
        """A part of the same kind without samples."""
        return Samples(self.values[:0], self.labels[:0])


@dataclass(frozen=True)
class Encoding:
    """How samples become numbers. A network is trained with one and is right for no other, whatever it is tested on.

    Its input is ``(values / 255 - mean) / std`` for each channel; with ``binary``, values above 0 count as 255.

    Attributes:
        classes: names of the classes in the order of the labels.
        mean, std: of each channel, in units of 255.
        binary: whether a pixel only says that there is an event.
    """

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    binary: bool = False


@dataclass(frozen=True)
class DataSource:
    """A data set, split into training and test.

    Attributes:
        name: as on the command line.
        train, test: the two parts; ``train`` is empty where only the test was asked for.
        classes, mean, std, binary: see :class:`Encoding`; the number of classes is ``num_classes``.
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    binary: bool = False

    @property
    def encoding(self) -> Encoding:
        """How its samples become numbers."""
        return Encoding(self.classes, self.mean, self.std, self.binary)

    def encoded(self, encoding: Encoding) -> DataSource:
        """The same samples, in the numbers that a trained network takes.

        Raises:
            ValueError: it has other classes, channels or values than the network was trained with.
        """
        if self.classes != encoding.classes:
            missing = [name for name in encoding.classes if name not in self.classes]
            unknown = [name for name in self.classes if name not in encoding.classes]
            raise ValueError(
                "data must have the classes that the network was trained on, in their order, "
                f"{_listed(encoding.classes)}, {self.name} has {_listed(self.classes)}"
                + (f"; missing: {_listed(missing)}" if missing else "")
                + (f"; unknown: {_listed(unknown)}" if unknown else "")
            )
        if self.in_channels != len(encoding.mean):
            channels = f"{len(encoding.mean)} channels, as the network was trained on"
            raise ValueError(f"data must have {channels}, {self.name} has {self.in_channels}")
        if self.binary != encoding.binary:
            names = "binary" if encoding.binary else "counts", "binary" if self.binary else "counts"
            raise ValueError(f"values must be {names[0]}, as the network was trained on, got {names[1]}")
        return dataclasses.replace(self, mean=encoding.mean, std=encoding.std)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def temporal(self) -> bool:
        """Whether samples are sequences of frames; images are the input of every time step."""
        return self.test.values.ndim == 5

    @property
    def in_channels(self) -> int:
        return self.test.values.shape[-3]

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.test.values.shape[-1]

    def fingerprint(self) -> str:
        """64 hexadecimal digits that tell whether two runs saw the same data: labels, shapes, normalisation, and 4,096
        evenly spread samples of each part."""
        digest = hashlib.sha256(repr((self.mean, self.std, self.binary, self.classes)).encode())
        for part in (self.train, self.test):
            stride = max(1, -(-len(part) // 4096))
            digest.update(repr(part.values.shape).encode())
            digest.update(np.ascontiguousarray(part.labels, dtype=np.int64).tobytes())
            digest.update(np.ascontiguousarray(part.values[::stride]).tobytes())
        return digest.hexdigest()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:8])} ... {names[-1]} ({len(names)})"
