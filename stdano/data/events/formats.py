"""Readers of event files. Each gives a structured array of type :data:`~.recordings.EVENTS`, in the file's order, and
raises ValueError where a file is damaged, with its name."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from .recordings import EVENTS


def read_nmnist(path: Path) -> np.ndarray:
    """N-MNIST's format, five bytes an event: x (8 bits), y (8), polarity (1), time in microseconds (23, big-endian).

    An entry with y = 240 is no event: from there on 2^13 microseconds are added to the time, as the data set's own
    reader does.
    """
    data = np.fromfile(path, np.uint8)
    if data.size % 5:
        raise ValueError(f"{path} is damaged: {data.size} bytes are not a whole number of events of 5 bytes")
    x, y, high, middle, low = data.reshape(-1, 5).astype(np.int64).T
    overflow = y == 240
    t = ((high & 0x7F) << 16 | middle << 8 | low) + (np.cumsum(overflow) << 13)
    return _events(t, x, y, high >> 7)[~overflow]


def read_aedat2(path: Path) -> np.ndarray:
    """AEDAT 2.0 of a DVS128, of which DVS-CIFAR10 is made: lines that start with ``#``, then address and time in
    microseconds of each event, both as 32 bits, big-endian.

    Bit 0 of the address is 0 where it got brighter; bits 1 to 7 and 8 to 14 are the pixel's row and column, both
    counted from the far end. These are SpikingJelly's coordinates, in which DVS-CIFAR10 should be upright; readers that
    take bits 1 to 7 for the column turn it by a quarter, so that mirroring left to right would mirror top to bottom.
    Time goes on where its 32 bits start again, after 71 minutes.
    """
    data = path.read_bytes()
    body = 0
    while data[body : body + 1] == b"#":
        body = data.find(b"\n", body) + 1 or len(data)
    if not any(line.startswith(b"#!AER-DAT2") for line in data[:body].splitlines()):
        raise ValueError(f"{path} is damaged: it must start with a header with #!AER-DAT2.0, got {data[:16]!r}")
    if (len(data) - body) % 8:
        raise ValueError(
            f"{path} is damaged: {len(data) - body} bytes after the header are not a whole number of events of 8 bytes"
        )
    address, t = np.frombuffer(data, ">u4", offset=body).reshape(-1, 2).T.astype(np.int64)
    return _events(unwrapped(t), 127 - (address >> 8 & 127), 127 - (address >> 1 & 127), 1 - (address & 1))


def read_aedat3(path: Path) -> np.ndarray:
    """AEDAT 3.1, of which DVS-Gesture is made: a header that ends with ``#!END-HEADER``, then packets, little-endian.
    A packet has 28 bytes about itself, then its events. Those of type 1 are taken: polarity in bit 1, row in bits 2 to
    16, column in bits 17 to 31, then time in microseconds, whose bits above the 31st stand with the packet. The mark
    of events that a filter found invalid (bit 0) is not looked at, as in SpikingJelly.
    """
    data = path.read_bytes()
    end = data.find(b"#!END-HEADER")
    if not data.startswith(b"#!AER-DAT3") or end < 0:
        raise ValueError(
            f"{path} is damaged: it must start with #!AER-DAT3.1 and a header up to #!END-HEADER, got {data[:16]!r}"
        )
    position = data.find(b"\n", end) + 1 or len(data)
    addresses, times = [], []
    while position < len(data):
        if position + 28 > len(data):
            raise ValueError(f"{path} is damaged: it ends within the header of a packet at byte {position}")
        kind, _, size, _, overflow, capacity, number, _ = struct.unpack_from("<HHIIIIII", data, position)
        position += 28
        if overflow >> 31:
            raise ValueError(f"{path} is damaged: at byte {position} time had begun anew {overflow} times")
        if number > capacity or (kind == 1 and size != 8):
            raise ValueError(
                f"{path} is damaged: at byte {position} up to {capacity} events of 8 bytes must follow, got {number} "
                f"of {size} bytes"
            )
        if position + capacity * size > len(data):
            raise ValueError(
                f"{path} is damaged: it ends within a packet of {capacity * size} bytes at byte {position}"
            )
        if kind == 1:
            pairs = np.frombuffer(data, "<u4", 2 * number, position).astype(np.int64)
            addresses.append(pairs[::2])
            times.append(pairs[1::2] + (overflow << 31))
        position += capacity * size
    nothing = [np.zeros(0, np.int64)]
    address, t = np.concatenate(addresses or nothing), np.concatenate(times or nothing)
    return _events(t, address >> 17, address >> 2 & 0x7FFF, address >> 1 & 1)


def unwrapped(t: np.ndarray) -> np.ndarray:
    """Times that were counted in 32 bits, int64: they go on where the counter started again. Events around that point
    may be out of order."""
    step = np.diff(t, prepend=t[:1])
    turns = np.cumsum((step < -(2**31)).astype(np.int64) - (step > 2**31))
    turns -= np.minimum(np.minimum.accumulate(turns), 0)  # a long pause at first is none that leads back
    return t + (turns << 32)


def _events(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    events = np.empty(len(t), EVENTS)
    events["t"], events["x"], events["y"], events["p"] = t, x, y, p
    return events
