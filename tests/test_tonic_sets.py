"""Data sets of tonic: small ones written in its own form, and its N-MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stdano.data.events import load_events
from stdano.data.source import DataSource
from stdano.settings import DataSettings

tonic = pytest.importorskip("tonic")
KIND = np.dtype([("x", np.int16), ("y", np.int16), ("p", bool), ("t", np.int64)])


class Small(tonic.Dataset):
    """As tonic's own: a file a recording, in an order that is not that of the names."""

    sensor_size: Any = (6, 4, 2)
    classes: Any = ("left", "right")
    kind = KIND
    count = 40

    def __init__(self, save_to: str, transform: Any = None) -> None:
        super().__init__(save_to, transform=transform)
        folder = Path(self.location_on_system)
        if not folder.exists():
            self.download()
        for n in sorted(range(self.count), key=lambda n: n * 7 % 11):
            self.data.append(str(folder / f"recording_{n}.npy"))
            self.targets.append(self.target(n))

    def target(self, n: int) -> Any:
        return n % 2

    def download(self) -> None:
        Path(self.location_on_system).mkdir(parents=True)
        for n in range(self.count):
            events = np.zeros(n + 1, self.kind)
            for field, values in {"t": np.arange(n + 1), "x": 5, "y": 3, "p": n % 2}.items():
                if field in events.dtype.names:
                    events[field] = values
            np.save(Path(self.location_on_system) / f"recording_{n}.npy", events)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        return np.load(self.data[index]), self.targets[index]

    def __len__(self) -> int:
        return len(self.data)


class Parted(Small):
    """With a part for training and one for the test, and names for classes."""

    classes = None

    def __init__(self, save_to: str, train: bool = True) -> None:
        super().__init__(save_to)
        keep = [i for i, file in enumerate(self.data) if ("_1" in Path(file).name) != train]
        self.data, self.targets = [self.data[i] for i in keep], [self.targets[i] for i in keep]

    def target(self, n: int) -> Any:
        return ("up", "down", "across")[n % 3]


def load(monkeypatch: pytest.MonkeyPatch, kind: type, root: Path, T: int = 2, **settings: Any) -> DataSource:
    monkeypatch.setattr(tonic.datasets, kind.__name__, kind, raising=False)
    name = f"tonic:{kind.__name__}"
    return load_events(DataSettings(data=name, root=str(root), cache=str(root / "cache"), **settings), T)


def events_of(data: DataSource) -> tuple[list[int], list[int]]:
    """Events a recording: recording n has n + 1."""
    train, test = (p.values.sum((1, 2, 3, 4), dtype=np.int64).tolist() for p in (data.train, data.test))
    return train, test


def test_without_parts_the_last_tenth_of_each_class_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = load(monkeypatch, Small, tmp_path)
    train, test = events_of(data)
    assert test == [37, 39, 38, 40] and train == [*range(1, 36, 2), *range(2, 37, 2)]
    assert data.test.labels.tolist() == [0, 0, 1, 1] and data.classes == ("left", "right")
    assert data.train.values.shape == (36, 2, 2, 6, 6)
    assert np.argwhere(data.test.values[3, 0]).tolist() == [[1, 4, 5]]  # 6 x 4 pixels in the middle of 6 x 6


def test_own_parts_and_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = load(monkeypatch, Parted, tmp_path, size=3)
    _, test = events_of(data)
    assert sorted(test) == [2, *range(11, 21)] and len(data.train) == 29
    assert data.classes == ("across", "down", "up") and data.size == 3
    assert data.classes[data.test.labels[test.index(11)]] == "down"


def test_recordings_of_different_sizes_and_without_polarity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Sizes(Small):
        sensor_size = None
        classes = {"b": 1, "a": 0}  # noqa: RUF012
        kind = np.dtype([("t", np.uint64), ("y", np.uint8), ("x", np.uint8)])

    data = load(monkeypatch, Sizes, tmp_path, size=12)
    assert data.classes == ("a", "b") and sum(map(sum, events_of(data))) == 820
    assert data.train.values[:, :, 1].sum() == 0
    assert load(monkeypatch, Sizes, tmp_path).size == 128


def test_times_of_32_bits_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Short(Small):
        kind = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.uint32)])

        def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
            events, target = super().__getitem__(index)
            events["x"] = np.arange(len(events)) * 6 // len(events)
            events["t"] += np.uint32(-(len(events) // 2) % 2**32)  # the second half begins at 0
            return events, target

    train = load(monkeypatch, Short, tmp_path).train.values
    assert (train[:, 0, :, :, 3:] == 0).all() and train[:, 0].sum() > 0


def test_a_changed_file_makes_new_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load(monkeypatch, Small, tmp_path)
    np.save(tmp_path / "Small" / "recording_39.npy", np.zeros(5, KIND))
    assert events_of(load(monkeypatch, Small, tmp_path))[1] == [37, 39, 38, 5]


def test_damaged_recordings_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load(monkeypatch, Small, tmp_path)
    path = tmp_path / "Small" / "recording_8.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{path} is damaged: "):
        load(monkeypatch, Small, tmp_path)
    np.save(path, np.array([(6, 3, 1, 0)], KIND))
    with pytest.raises(ValueError, match=rf"{path} is damaged: events must lie on the sensor of 6 x 4 pixels"):
        load(monkeypatch, Small, tmp_path)


def test_what_cannot_be_classified_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Boxes(Small):
        def target(self, n: int) -> Any:
            return {"box": n}

    class Line(Small):
        sensor_size = (700, 1, 1)

    class Seconds(Small):
        kind = np.dtype([("t", float), ("x", int), ("y", int)])

    class Empty(Small):
        count = 0

    class Gone(Small):
        def download(self) -> None:
            raise OSError("no network")

    for kind, message in (
        (Boxes, "tonic:Boxes must be a data set for classification, with an int or str a .*, got dict"),
        (Empty, "got no recordings"),
        (Line, "tonic:Line must be recorded by a camera, got a sensor of 700 x 1"),
        (Seconds, r"recording_\d+\.npy must have events with whole numbers t, x and y, got"),
        (Gone, r"could not find Gone in .* nor download it \(OSError: no network\): see .* by hand"),
    ):
        with pytest.raises(ValueError, match=message):
            load(monkeypatch, kind, tmp_path)
    with pytest.raises(ValueError, match=r"data must be tonic: and one of .*, NMNIST,.*, got tonic:MNIST"):
        load_events(DataSettings(data="tonic:MNIST"), 1)
    with pytest.raises(ValueError, match="tonic:SHD must be recorded by a camera"):
        monkeypatch.setattr(tonic.datasets.SHD, "__init__", lambda self, save_to, train=True: None)
        monkeypatch.setattr(tonic.datasets.SHD, "__len__", lambda self: 1)
        monkeypatch.setattr(tonic.datasets.SHD, "targets", [3], raising=False)
        load_events(DataSettings(data="tonic:SHD"), 1)


def test_tonics_nmnist_gives_the_frames_of_nmnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for n in range(20):
        path = tmp_path / "NMNIST" / ("Train" if n < 10 else "Test") / str(n % 10) / "00000.bin"
        path.parent.mkdir(parents=True)
        rng = np.random.default_rng(n)
        t = np.sort(rng.integers(0, 300_000, 50))
        path.write_bytes(
            b"".join(
                bytes([*rng.integers(0, 34, 2)]) + (int(rng.integers(2)) << 23 | int(at)).to_bytes(3, "big") for at in t
            )
        )
    monkeypatch.setattr(tonic.datasets.NMNIST, "_check_exists", lambda self: True)
    settings = {"root": str(tmp_path), "cache": str(tmp_path / "cache")}
    theirs, ours = (load_events(DataSettings(data=name, **settings), 3) for name in ("tonic:NMNIST", "nmnist"))
    for part in ("train", "test"):
        assert (getattr(theirs, part).values == getattr(ours, part).values).all()
        assert (getattr(theirs, part).labels == getattr(ours, part).labels).all()
    assert theirs.std == ours.std and theirs.classes[3] == "3 - three"
