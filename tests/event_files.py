"""Recordings of event cameras as bytes, in the formats of the data sets; events are rows of t, x, y and p."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

Row = tuple[int, int, int, int]  # t, x, y, p


def nmnist_bytes(events: Iterable[Row]) -> bytes:
    return b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for t, x, y, p in events)


def aedat2_bytes(events: Iterable[Row]) -> bytes:
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
    return header + b"".join(struct.pack(">II", (127 - x) << 8 | (127 - y) << 1 | (1 - p), t) for t, x, y, p in events)


def packet(events: Iterable[Row], kind: int = 1, overflow: int = 0) -> bytes:
    body = b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for t, x, y, p in events)
    count = len(body) // 8
    return struct.pack("<HHIIIIII", kind, 0, 8, 4, overflow, count, count, count) + body


def aedat3_bytes(*packets: bytes) -> bytes:
    return b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + b"".join(packets)


def some_events(seed: int, count: int = 30, side: int = 34, start: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    t = start + np.sort(rng.integers(0, 1000, count))
    return list(zip(t.tolist(), *rng.integers(0, [[side], [side], [2]], (3, count)).tolist(), strict=True))


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
