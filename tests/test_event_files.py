"""Event files: each format against bytes written here, splits, the cache, and what is said of damaged files."""

from __future__ import annotations

import os
import shutil
import struct
import sys
import types
import urllib.error
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from event_files import Row, aedat2_bytes, aedat3_bytes, nmnist_bytes, packet, some_events, write

from stdano.data.events import load_events
from stdano.data.events.folders import CIFAR10, dvs_cifar10, dvs_gesture, nmnist
from stdano.data.events.formats import read_aedat2, read_aedat3, read_nmnist
from stdano.data.events.frames import to_frames
from stdano.data.events.recordings import EVENTS
from stdano.data.source import DataSource
from stdano.settings import DataSettings

NMNIST = Path(__file__).parents[2] / "shared" / "data" / "nmnist-subset"


def rows(events: np.ndarray) -> list[Row]:
    assert events.dtype == EVENTS
    return events.tolist()


def write_nmnist(folder: Path) -> None:
    for part, count in (("Train", 3), ("Test", 1)):
        for digit in range(10):
            for i in range(count):
                write(folder / part / str(digit) / f"{i:05}.bin", nmnist_bytes(some_events(100 * digit + i)))


def load(data: str, root: Path, cache: Path, T: int = 2, **settings: object) -> DataSource:
    return load_events(DataSettings(data=data, root=str(root), cache=str(cache), **settings), T)  # type: ignore[arg-type]


# Formats


def test_nmnist_format(tmp_path: Path) -> None:
    events = [(5, 33, 1, 1), (2**22, 0, 33, 0), (2**23 - 1, 7, 8, 1)]
    assert rows(read_nmnist(write(tmp_path / "a.bin", nmnist_bytes(events)))) == events
    overflowing = [(5, 1, 2, 1), (0, 0, 240, 0), (6, 3, 4, 0), (0, 9, 240, 1), (1, 5, 6, 1)]
    path = write(tmp_path / "b.bin", nmnist_bytes(overflowing))
    assert rows(read_nmnist(path)) == [(5, 1, 2, 1), (6 + 8192, 3, 4, 0), (1 + 16384, 5, 6, 1)]
    tonic = pytest.importorskip("tonic.io")
    theirs = tonic.read_mnist_file(str(path), np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    assert all((read_nmnist(path)[name] == theirs[name]).all() for name in "xytp")


def test_aedat2_format(tmp_path: Path) -> None:
    events = [(5, 127, 0, 1), (2**31 + 7, 3, 126, 0)]
    path = write(tmp_path / "a.aedat", aedat2_bytes(events))
    assert rows(read_aedat2(path)) == events
    theirs = pytest.importorskip("spikingjelly.datasets.cifar10_dvs")._load_origin_data(path)
    assert all((read_aedat2(path)[name] == theirs[name]).all() for name in "xytp")
    # Bit 0 is 0 for brighter, whatever stands above the address.
    path.write_bytes(b"#!AER-DAT2.0\n" + struct.pack(">II", 0xFFFF8000 | 5 << 8 | 9 << 1, 1))
    assert rows(read_aedat2(path)) == [(1, 122, 118, 1)]


def test_aedat2_time_goes_on_where_its_32_bits_start_again(tmp_path: Path) -> None:
    turn = 2**32
    times = [turn - 9, turn - 2, turn + 3, turn - 1, turn + 5, 2 * turn - 7, 2 * turn + 1]
    slowly = [1, turn // 3, 2 * turn // 3, *times[:-2], turn + turn // 3, turn + 2 * turn // 3, *times[-2:]]
    path = write(tmp_path / "a.aedat", aedat2_bytes([(t % turn, 1, 1, 1) for t in slowly]))
    assert read_aedat2(path)["t"].tolist() == slowly
    after = [10, 2**31 + 20, turn - 5, turn + 30]  # a long pause is no way back
    path = write(tmp_path / "b.aedat", aedat2_bytes([(t % turn, 1, 1, 1) for t in after]))
    assert read_aedat2(path)["t"].tolist() == after


def test_frames_of_another_reader_are_not_used(tmp_path: Path) -> None:
    """Events of DVS-CIFAR10 were other ones before time went on."""
    write_cifar(tmp_path, range(2))
    assert dvs_cifar10(tmp_path).train.fingerprint.startswith("2 ")


def test_aedat3_format(tmp_path: Path) -> None:
    first, second = [(5, 127, 0, 1), (6, 3, 126, 0)], [(1, 2, 4, 1)]
    special = packet([(9, 9, 9, 1)], kind=0)
    path = write(tmp_path / "a.aedat", aedat3_bytes(packet(first), special, packet(second, overflow=3), packet([])))
    assert rows(read_aedat3(path)) == [*first, (1 + 3 * 2**31, 2, 4, 1)]
    theirs = pytest.importorskip("spikingjelly.datasets.utils").load_aedat_v3(path)
    assert all((read_aedat3(path)[name] == theirs[name]).all() for name in "xytp")


EVENTS_3 = some_events(0, 3)


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (read_nmnist, nmnist_bytes(EVENTS_3)[:-1], "14 bytes are not a whole number of events of 5 bytes"),
        (read_aedat2, aedat2_bytes(EVENTS_3)[:-4], "20 bytes after the header are not a whole number of events"),
        (read_aedat2, aedat2_bytes(EVENTS_3)[14:], "must start with a header with #!AER-DAT2.0, got b'# This is a"),
        (read_aedat2, b"", "must start with a header"),
        (read_aedat2, b"#!AER-DAT3.1\r\n", "must start with a header with #!AER-DAT2.0"),
        (read_aedat3, aedat3_bytes(packet(EVENTS_3))[:-3], "it ends within a packet of 24 bytes"),
        (read_aedat3, aedat3_bytes(packet(EVENTS_3), b"\x01\x00"), "it ends within the header of a packet"),
        (read_aedat3, aedat2_bytes(EVENTS_3), "must start with #!AER-DAT3.1 and a header up to #!END-HEADER"),
        (read_aedat3, b"#!AER-DAT3.1\r\n", "up to #!END-HEADER"),
        (read_aedat3, aedat3_bytes(struct.pack("<HHIIIIII", 1, 0, 9, 4, 0, 1, 1, 1)), "got 1 of 9 bytes"),
        (read_aedat3, aedat3_bytes(struct.pack("<HHIIIIII", 1, 0, 8, 4, 0, 1, 2, 2)), "up to 1 events of 8 bytes"),
        (read_aedat3, aedat3_bytes(packet(EVENTS_3, overflow=2**32 - 1)), "time had begun anew 4294967295 times"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, reader: Callable[[Path], np.ndarray], content: bytes, message: str
) -> None:
    path = write(tmp_path / "bad.aedat", content)
    with pytest.raises(ValueError) as error:
        reader(path)
    assert str(error.value).startswith(f"{path} is damaged: ") and message in str(error.value)


# N-MNIST


def test_nmnist_folders_labels_and_frames(tmp_path: Path) -> None:
    for place in ("", "nmnist", "NMNIST"):
        root = tmp_path / f"root{place}"
        write_nmnist(root / place)
        data = load("nmnist", root, tmp_path / "cache")
        assert data.train.labels.tolist() == sorted(list(range(10)) * 3) and data.test.labels.tolist() == [*range(10)]
        assert data.train.values.shape == (30, 2, 2, 34, 34) and data.classes == tuple("0123456789")
        expected = to_frames(np.array(some_events(401), EVENTS), 2, "count", (34, 34), 34)[0]
        assert (data.train.values[13] == expected).all()


def test_each_setting_has_its_own_frames_and_values_share_them(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    cache = tmp_path / "cache"
    base = load("nmnist", tmp_path, cache)
    assert not (base.train.values == load("nmnist", tmp_path, cache, frames="time").train.values).all()
    assert load("nmnist", tmp_path, cache, size=17).size == 17
    assert load("nmnist", tmp_path, cache, T=3).train.values.shape[1] == 3
    assert len(list(cache.glob("*.npy"))) == 8
    binary = load("nmnist", tmp_path, cache, values="binary")
    assert binary.binary and binary.std == (1, 1) and binary.mean == (0, 0)
    assert (binary.train.values == base.train.values).all()
    assert len(list(cache.glob("*.npy"))) == 8


def test_a_changed_file_makes_new_frames(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    cache = tmp_path / "cache"
    before = load("nmnist", tmp_path, cache).train.values.copy()
    path = tmp_path / "Train" / "0" / "00000.bin"
    content = path.read_bytes()
    path.write_bytes(content[:2] + bytes([content[2] ^ 128]) + content[3:])
    os.utime(path, ns=(1, 1))
    after = load("nmnist", tmp_path, cache).train.values
    assert (before[1:] == after[1:]).all() and not (before[0] == after[0]).all()


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "it has no events"),
        ([(5, 34, 33, 1)], "the sensor of 34 x 34 pixels, got x from 34 to 34 and y from 33 to 33"),
        ([(5, 0, 34, 1)], "y from 34 to 34"),
        ([(t * 7919 % 5000, 1, 1, 1) for t in range(200)], "time runs backwards"),
    ],
)
@pytest.mark.parametrize("part", ["Train", "Test"])
def test_a_damaged_recording_is_named_and_nothing_is_kept(
    tmp_path: Path, part: str, events: list[Row], message: str
) -> None:
    write_nmnist(tmp_path)
    path = write(tmp_path / part / "9" / "00000.bin", nmnist_bytes(events))
    cache = tmp_path / "cache"
    for _ in range(2):
        with pytest.raises(ValueError) as error:
            load("nmnist", tmp_path, cache)
        assert str(error.value).startswith(f"{path} is damaged: ") and message in str(error.value)
    assert len([f for f in cache.iterdir() if f.suffix != ".lock"]) == (0 if part == "Train" else 2)
    write(path, nmnist_bytes(some_events(0)))
    assert len(load("nmnist", tmp_path, cache).train) == 30


def test_a_few_steps_back_in_time_are_no_damage(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    events = [(t, 1, 1, 1) for t in [*range(50), *range(40, 90)]]
    write(tmp_path / "Train" / "9" / "00000.bin", nmnist_bytes(events))
    assert load("nmnist", tmp_path, tmp_path / "cache").train.values[27].sum() == 100


def test_absent_nmnist_is_downloaded_or_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("tonic.datasets")

    def refuse(self: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(datasets.NMNIST, "download", refuse)
    with pytest.raises(ValueError) as error:
        nmnist(tmp_path)
    for words in ("no network", "mendeley.com", "Train.zip", str(tmp_path / "nmnist" / "Train" / "0" / "*.bin")):
        assert words in str(error.value)
    monkeypatch.setattr(datasets.NMNIST, "download", lambda self: write_nmnist(Path(self.location_on_system)))
    assert len(nmnist(tmp_path).train.labels) == 30
    write_nmnist(tmp_path / "empty")
    for path in (tmp_path / "empty" / "Test").rglob("*.bin"):
        path.unlink()
    with pytest.raises(ValueError, match="no recordings in .*Test.*Train.zip and Test.zip"):
        nmnist(tmp_path / "empty")


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (["Test/9"], "no recordings of 9 in .*Test: get"),
        ([f"Train/{digit}" for digit in (6, 7, 8, 9)], "no recordings of 6, 7, 8, 9 in .*Train: get"),
        (["Test"], "no recordings in .*Test: get"),
        (["Train"], "no recordings in .*Train: get"),
    ],
)
def test_incomplete_nmnist_is_named(tmp_path: Path, remove: list[str], message: str) -> None:
    write_nmnist(tmp_path / "nmnist")
    for place in remove:
        shutil.rmtree(tmp_path / "nmnist" / place)
    with pytest.raises(ValueError, match=f"nmnist has {message} Train.zip and Test.zip"):
        nmnist(tmp_path)


def test_hidden_files_are_no_recordings(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    write(tmp_path / "Train" / "0" / "._00000.bin", b"Mac OS X")
    assert len(load("nmnist", tmp_path, tmp_path / "cache").train) == 30


def test_the_same_files_for_both_parts(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    shutil.rmtree(tmp_path / "Test")
    (tmp_path / "Test").symlink_to("Train")
    with pytest.raises(
        ValueError, match=r"not for training, 30 of 30 test files are .*Test/0/00000\.bin, which is .*Train"
    ):
        load("nmnist", tmp_path, tmp_path / "cache")
    write_gesture(tmp_path / "gesture")
    write(tmp_path / "gesture" / "trials_to_test.txt", "user24_led.aedat\nuser01_led.aedat\n")
    with pytest.warns(
        RuntimeWarning, match=r"1 of 2 test files are training files as well, such as .*user01_led\.aedat$"
    ):
        dvs_gesture(tmp_path / "gesture")


def test_without_tonic_the_advice_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tonic", None)
    with pytest.raises(ValueError, match=r"pip install 'stdano\[events\]'.*Train.zip"):
        nmnist(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'stdano\[events\]'"):
        load("tonic:NMNIST", tmp_path, tmp_path / "cache")
    write_nmnist(tmp_path)
    assert len(load("nmnist", tmp_path, tmp_path / "cache").train) == 30


@pytest.mark.skipif(not NMNIST.is_dir(), reason="needs ../shared/data/nmnist-subset")
def test_real_nmnist(tmp_path: Path) -> None:
    data = load("nmnist", NMNIST, tmp_path, T=8)
    assert (len(data.train), len(data.test)) == (600, 100)
    assert np.bincount(data.train.labels)[:3].tolist() == [58, 79, 64]
    bytes_of = [f.stat().st_size for digit in range(10) for f in sorted((NMNIST / "Train" / str(digit)).iterdir())]
    assert data.train.values.sum((1, 2, 3, 4), dtype=np.int64).tolist() == [size // 5 for size in bytes_of]
    tonic = pytest.importorskip("tonic")
    path = sorted((NMNIST / "Test" / "3").iterdir())[0]
    events = tonic.io.read_mnist_file(str(path), tonic.datasets.NMNIST.dtype)
    theirs = tonic.transforms.ToFrame((34, 34, 2), n_event_bins=8)(events)
    index = data.test.labels.tolist().index(3)
    each = len(events) // 8 * 8
    assert (theirs[:7] == data.test.values[index][:7]).all() and theirs.sum() == each


# DVS-CIFAR10


def write_cifar(folder: Path, numbers: Iterable[int], suffix: str = ".aedat") -> None:
    for label, name in enumerate(CIFAR10):
        for n in numbers:
            write(folder / name / f"cifar10_{name}_{n}{suffix}", aedat2_bytes(some_events(1000 * label + n, side=128)))


def test_dvs_cifar10_splits_by_number(tmp_path: Path) -> None:
    write_cifar(tmp_path / "dvs-cifar10", range(20))
    source = dvs_cifar10(tmp_path)
    named = [Path(str(name)).stem.rsplit("_", 1) for name in source.test.names]
    assert [int(number) for _, number in named] == [18, 19] * 10 and named[2][0] == "cifar10_automobile"
    assert len(source.train.names) == 180 and source.test.labels.tolist() == sorted([*range(10)] * 2)
    data = load("dvs-cifar10", tmp_path, tmp_path / "cache", T=3)
    assert data.test.values.shape == (20, 3, 2, 48, 48) and data.classes == CIFAR10
    expected = to_frames(np.array(some_events(2019, side=128), EVENTS), 3, "count", (128, 128), 48)[0]
    assert (data.test.values[5] == expected).all()
    assert load("dvs-cifar10", tmp_path, tmp_path / "cache", size=128).size == 128


def test_dvs_cifar10_in_tonics_edition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tonic")
    write_cifar(tmp_path / "CIFAR10DVS", range(2), ".aedat4")
    with pytest.raises(ModuleNotFoundError, match=r"_0\.aedat4 can be read with tonic and the package aedat"):
        monkeypatch.setitem(sys.modules, "aedat", None)
        load("dvs-cifar10", tmp_path, tmp_path / "cache")

    class Decoder:
        """Of the package aedat: packets of events."""

        def __init__(self, path: str) -> None:
            assert path.endswith(".aedat4")
            if path.endswith("truck_1.aedat4"):
                raise RuntimeError("cut short")

        def id_to_stream(self) -> dict:
            return {0: {"type": "events"}}

        def __iter__(self) -> Iterable[dict]:
            kind = np.dtype([("t", np.uint64), ("x", np.uint16), ("y", np.uint16), ("on", bool)])
            yield {"stream_id": 0, "events": np.array([(7, 3, 127, True)], kind)}

    monkeypatch.setitem(sys.modules, "aedat", types.SimpleNamespace(Decoder=Decoder))
    with pytest.raises(ValueError, match=r"truck_1\.aedat4 is damaged: cut short"):
        load("dvs-cifar10", tmp_path, tmp_path / "cache")
    source = dvs_cifar10(tmp_path)
    assert rows(source.train.read(0)) == [(7, 3, 127, 1)]


def test_dvs_cifar10_absent_or_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("tonic.datasets")

    def refuse(self: object) -> None:
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(datasets.CIFAR10DVS, "download", refuse)
    with pytest.raises(ValueError, match=r"corrupted.*airplane\.zip.*figshare.*cifar10_airplane_0\.aedat"):
        dvs_cifar10(tmp_path)
    write_cifar(tmp_path, range(2))
    (tmp_path / "frog" / "cifar10_frog_0.aedat").unlink()
    with pytest.raises(ValueError, match=r"dvs-cifar10 has 1 recordings in .*frog: get airplane\.zip"):
        dvs_cifar10(tmp_path)
    shutil.rmtree(tmp_path / "airplane")
    with pytest.raises(ValueError, match=r"dvs-cifar10 has 0 recordings in .*airplane: get airplane\.zip"):
        dvs_cifar10(tmp_path)
    write_cifar(tmp_path, range(3))
    (tmp_path / "frog" / "cifar10_frog_2.aedat").unlink()
    with pytest.warns(RuntimeWarning, match=r"not complete in .*: of 3 recordings a class there are frog 2$"):
        dvs_cifar10(tmp_path)


# DVS-Gesture


def write_gesture(folder: Path) -> None:
    """Two files with three trials for training, one with one for the test."""
    tables = {
        "user01_led": [(1, 100, 1100), (11, 2000, 2500)],
        "user02_lab": [(8, 0, 5000)],
        "user24_led": [(3, 500, 900)],
    }
    for seed, (name, trials) in enumerate(tables.items()):
        events = [(25 * i, x, y, p) for i, (_, x, y, p) in enumerate(some_events(seed, 200, side=128))]
        write(folder / f"{name}.aedat", aedat3_bytes(packet(events[:77]), packet(events[77:])))
        lines = "".join(f"{','.join(map(str, trial))}\n" for trial in trials)
        write(folder / f"{name}_labels.csv", "class,startTime_usec,endTime_usec\n" + lines)
    write(folder / "trials_to_train.txt", "user01_led.aedat\nuser02_lab.aedat\n\n")
    write(folder / "trials_to_test.txt", "user24_led.aedat\n")


def test_dvs_gesture_trials(tmp_path: Path) -> None:
    write_gesture(tmp_path / "DvsGesture")
    source = dvs_gesture(tmp_path)
    assert source.train.labels.tolist() == [0, 10, 7] and source.test.labels.tolist() == [2]
    times = [source.train.read(i)["t"] for i in range(3)]
    assert [(t[0], t[-1]) for t in times] == [(100, 1075), (2000, 2475), (0, 4975)]
    with pytest.warns(
        RuntimeWarning, match="no recordings for training of right hand wave, left hand wave, .* complete?"
    ):
        data = load("dvs-gesture", tmp_path, tmp_path / "cache")
    assert data.train.values.shape == (3, 2, 2, 128, 128) and data.num_classes == 11
    assert data.train.values.sum((1, 2, 3, 4)).tolist() == [40, 20, 200]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("class,start,end\n12,0,9\n", "line 2 must be a class from 1 to 11, start and end .*, got '12,0,9'"),
        ("class,start,end\n1,0,9\n1,9,9\n", "line 3 must be"),
        ("class,start,end\n1,0\n", "line 2 must be"),
        ("class,start,end\n", "it has no trials"),
    ],
)
def test_dvs_gesture_damaged_table(tmp_path: Path, table: str, message: str) -> None:
    write_gesture(tmp_path)
    write(tmp_path / "user02_lab_labels.csv", table)
    with pytest.raises(ValueError, match=f"user02_lab_labels.csv is damaged: {message}"):
        dvs_gesture(tmp_path)


def test_dvs_gesture_absent_or_incomplete(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dvs-gesture is not in .* by hand: get DvsGesture\.tar\.gz from"):
        dvs_gesture(tmp_path)
    write_gesture(tmp_path)
    write(tmp_path / "user24_led_labels.csv", "class,start,end\n1,99990,99999\n")
    with pytest.raises(ValueError, match=r"user24_led\.aedat from 99990 to 99999 us is damaged: it has no events"):
        load("dvs-gesture", tmp_path, tmp_path / "cache")
    (tmp_path / "user02_lab.aedat").unlink()
    with pytest.raises(ValueError, match=r"has no .*user02_lab\.aedat, which trials_to_train\.txt names"):
        dvs_gesture(tmp_path)
