"""keep_freed_memory: what it tells malloc, where it does nothing, and who calls it."""

import ctypes
import sys

import pytest
import torch

import stdano
from stdano.settings import TrainSettings, from_json, replace, to_json


class Library:
    def __init__(self, answer):
        self.calls, self.answer = [], answer

    def mallopt(self, parameter, value):
        self.calls.append((parameter, value))
        return self.answer


@pytest.mark.parametrize("answer", [1, 0])
def test_what_malloc_is_told(answer, monkeypatch):
    library = Library(answer)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert stdano.keep_freed_memory() == bool(answer)
    assert library.calls[0] == (-3, 32 * 2**20)  # M_MMAP_THRESHOLD, the largest that glibc takes
    assert answer == 0 or library.calls[1:] == [(-1, 2**31 - 1)]  # M_TRIM_THRESHOLD


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # musl has no mallopt
    assert stdano.keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "darwin")
    assert stdano.keep_freed_memory() is False


def test_runs_keep_it_on_cpus(monkeypatch):
    pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
    pytest.importorskip("sklearn", reason="needs the extra [app]")
    from stdano.training import setup

    calls = []
    monkeypatch.setattr(setup, "keep_freed_memory", lambda: calls.append("kept"))
    monkeypatch.setattr(setup, "load_data", lambda *_: calls.append("data") or 1 / 0)
    for keep, expected in ((True, ["kept", "data"]), (False, ["data"])):
        calls.clear()
        with pytest.raises(ZeroDivisionError):
            setup.Setup(replace(TrainSettings(), keep_memory=keep, accelerator="cpu", threads=torch.get_num_threads()))
        assert calls == expected  # before anything large is made


def test_settings_of_older_runs_load():
    text = to_json(TrainSettings()).replace('    "keep_memory": true,\n', "")
    assert "keep_memory" not in text and from_json(text, TrainSettings) == TrainSettings()
