"""The cache of decoded samples: nothing half-made is ever found, and nothing is made twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stdano.data import load_data
from stdano.data.cache import cached, fingerprint
from stdano.settings import DataSettings

KEY = {"data": "test", "part": "train", "version": 1}


def fill(values: np.ndarray) -> dict[str, int]:
    values[:] = np.arange(values.size, dtype=np.uint8).reshape(values.shape)
    return {"sum": int(values.sum())}


def never(values: np.ndarray) -> dict[str, int]:
    raise AssertionError("made again")


def test_made_once_then_mapped(tmp_path: Path) -> None:
    values, extra = cached(str(tmp_path), KEY, (3, 5), fill)
    assert values.shape == (3, 5) and values.dtype == np.uint8 and extra == {"sum": 105}
    assert isinstance(values, np.memmap) and not values.flags.writeable
    again, extra = cached(str(tmp_path), dict(reversed(KEY.items())), (3, 5), never)
    assert (again == values).all() and extra == {"sum": 105}
    other, _ = cached(str(tmp_path), {**KEY, "version": 2}, (2, 2), fill)
    assert other.shape == (2, 2)


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached("", KEY, (1, 1), fill)
    assert list((tmp_path / "stdano").glob("*.npy"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cached("", KEY, (1, 1), fill)
    assert list((tmp_path / "home" / ".cache" / "stdano").glob("*.npy"))


def test_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is run under a number without an entry for a user."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ValueError, match=r"cache must be given \(or XDG_CACHE_HOME set\) where HOME is not set"):
        cached("", KEY, (1, 1), never)
    cached(str(tmp_path), KEY, (1, 1), fill)
    with pytest.raises(ValueError, match="cache must be a path without ~ here, .* got ~/here"):
        cached("~/here", KEY, (1, 1), never)
    for data in ("cifar10", "tiny-imagenet", "digits-events"):
        with pytest.raises(ValueError, match="root must be a path without ~ here, .* got ~/data"):
            load_data(DataSettings(data, "~/data", str(tmp_path)), 1)
    with pytest.raises(ValueError, match="data must be a path without ~ here, .* got ~/images"):
        load_data(DataSettings("folder:~/images", cache=str(tmp_path)), 1)


def test_a_folder_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cached("~/kept", KEY, (1, 1), fill)
    assert list((tmp_path / "kept").glob("*.npy"))


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_a_failure(tmp_path: Path, failure: type[BaseException]) -> None:
    def fail(values: np.ndarray) -> dict[str, int]:
        values[0] = 1
        raise failure

    with pytest.raises(failure):
        cached(str(tmp_path), KEY, (3, 5), fail)
    with pytest.raises(TypeError):
        cached(str(tmp_path), KEY, (3, 5), lambda values: {"not JSON": values})
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_killed_process_leaves_no_entry(tmp_path: Path) -> None:
    code = (
        "import os, signal; from stdano.data.cache import cached\n"
        f"cached({str(tmp_path)!r}, {KEY!r}, (3, 5), lambda values: os.kill(os.getpid(), signal.SIGKILL))"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert list(tmp_path.glob(".*.tmp"))
    cached(str(tmp_path), KEY, (3, 5), fill)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("damage", ["short", "header", "empty", "long", "json", "other key", "no array"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage: str) -> None:
    cached(str(tmp_path), KEY, (3, 5), fill)
    (array,), (about,) = tmp_path.glob("*.npy"), tmp_path.glob("*.json")
    size = array.stat().st_size
    if damage in ("short", "header", "empty", "long"):
        os.truncate(array, {"short": size - 1, "header": 20, "empty": 0, "long": size + 1}[damage])
    elif damage == "no array":
        array.unlink()
    else:
        about.write_text("{" if damage == "json" else json.dumps({"key": {}, "extra": {}}))
    values, extra = cached(str(tmp_path), KEY, (3, 5), lambda values: {**fill(values), "made": "anew"})
    assert (values.ravel() == np.arange(15)).all() and extra["made"] == "anew"
    cached(str(tmp_path), KEY, (3, 5), never)


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    code = (
        "import os, time; from stdano.data.cache import cached\n"
        f"def fill(values): time.sleep(0.2); open({str(tmp_path / 'made')!r}, 'a').write('x'); return {{}}\n"
        f"cached({str(tmp_path / 'cache')!r}, {KEY!r}, (3, 5), fill)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "made").read_text() == "x"


def test_folders_that_cannot_hold_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cache must be a folder that can be written, got .*file/cache"):
        cached(str(tmp_path / "file" / "cache"), KEY, (3, 5), fill)
    with pytest.raises(ValueError, match=r"cache must be a folder with room for 1073741824 MiB more, got "):
        cached(str(tmp_path), KEY, (1 << 50,), never)
    assert not list(tmp_path.glob(".*.tmp"))


def test_all_room_is_taken_before_anything_is_made(tmp_path: Path) -> None:
    def look(values: np.memmap) -> dict[str, int]:
        return {"bytes": 512 * os.stat(values.filename).st_blocks}

    _, extra = cached(str(tmp_path), KEY, (1 << 20,), look)
    assert extra["bytes"] >= 1 << 20


def test_fingerprint(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_bytes(b"123")
    first = fingerprint(files, tmp_path)
    assert first == fingerprint(files, tmp_path) != fingerprint(files[::-1], tmp_path)
    files[0].write_bytes(b"1234")
    assert fingerprint(files, tmp_path) != first
