"""Kernels that are compiled at their first use: kept on disk, found again, and never executed when they are not what
they should be."""

import itertools
import os
import stat
import subprocess
import sys

import pytest
import torch

from stdano_kernels import Neuron, State, compiler, function
from stdano_kernels.define import spike

_numbers = itertools.count(2)
X = torch.linspace(-1, 3, 40).reshape(4, 10)


def new_neuron():
    """One that no test before had: another leak."""
    leak = 1 / next(_numbers)

    class Leaky(Neuron):
        v = State()

        def step(n, x, v):
            h = leak * v + x
            s = spike(h - n.v_threshold)
            return s, n.reset(h, s, n.v_threshold)

    return Leaky


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("STDANO_CACHE", str(folder))
    monkeypatch.setattr(compiler, "_errors", {})
    return folder


def test_a_kernel_is_kept_on_disk(cache):
    neuron = new_neuron()
    assert torch.equal(function(neuron)(X, backend="cpu"), function(neuron)(X, backend="reference"))
    (file,) = cache.iterdir()
    assert file.name.startswith("Leaky-") and file.suffix == ".so"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


SCRIPT = """
import subprocess, sys, torch
from stdano_kernels import Neuron, State, compiler, function
from stdano_kernels.define import spike
original = subprocess.run

def refuse(command, **options):
    assert "-shared" not in command, "compiles again"
    return original(command, **options)

if "no compiler" in sys.argv:
    subprocess.run = refuse

class Slow(Neuron):
    v = State()
    def step(n, x, v):
        h = 0.125 * v + x
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold)

print(int(function(Slow)(torch.full((4, 3), 0.9), backend="cpu").sum()))
"""


@pytest.mark.slow
def test_several_processes_at_once_and_later(cache, tmp_path):
    """Three compile the same; a fourth finds it, a fifth compiles what was damaged anew."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    for process in [start() for _ in range(3)]:
        out, error = process.communicate()
        assert out.strip() == "6", error
    (file,) = cache.iterdir()
    out, error = start("no compiler").communicate()
    assert out.strip() == "6", error
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "compiles again" in start("no compiler").communicate()[1]
    assert start().communicate()[0].strip() == "6"
    assert file.read_bytes()[-32:] == content[-32:] or file.stat().st_size == len(content)


def test_no_compiler(cache, monkeypatch):
    """The reference serves, with one warning that says what is missing; an explicit backend does not fall back."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiler._compiler.cache_clear()
    try:
        run = function(new_neuron())
        with pytest.warns(
            RuntimeWarning, match="Leaky on cpu: no C.. compiler was found .no-such-compiler.; install g"
        ):
            out = run(X)
        assert torch.equal(out, run(X, backend="reference"))
        with pytest.raises(RuntimeError, match='backend="cpu" is not available for Leaky: no C.. compiler'):
            run(X, backend="cpu")
    finally:
        compiler._compiler.cache_clear()


def test_a_compiler_that_fails(cache, monkeypatch, tmp_path):
    """Its own words are shown."""
    broken = tmp_path / "broken-c++"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "neuron.cpp:1: error: no more bits" >&2\nexit 3\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    compiler._compiler.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="(?s)Leaky: .*broken-c.*failed:\nneuron.cpp:1: error: no more bits"):
            function(new_neuron())(X, backend="cpu")
    finally:
        compiler._compiler.cache_clear()
    assert not list(cache.glob("*.so"))


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_folder_that_others_can_write_to(cache):
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(RuntimeError, match="must be this user's alone .chmod go-w.; or set STDANO_CACHE"):
        function(new_neuron())(X, backend="cpu")


def test_a_folder_that_cannot_be_made(cache, tmp_path):
    cache.write_text("a file")
    with pytest.raises(RuntimeError, match="the folder for compiled kernels cannot be made .*; set STDANO_CACHE"):
        function(new_neuron())(X, backend="cpu")
