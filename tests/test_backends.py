"""Which backend serves a tensor, and what is asked for it: the Triton module and the driver, each only when needed."""

import importlib.metadata
import re
import subprocess
import sys
import types

import pytest
import torch
from kernels_common import FUNCTIONS, NEURONS, make_x
from step_common import CASES, make_step

import stdano
import stdano_kernels

backends = sys.modules["stdano_kernels.backends"]  # whose name in the package is the function's
CACHED = (backends._load_triton, backends._device_error, backends._code_error, backends.warn_once)


@pytest.fixture
def patch(monkeypatch):
    """monkeypatch.setattr for what backends have found out once and for all."""

    def forget():
        for function in CACHED:
            function.cache_clear()

    def setattr(*arguments):
        monkeypatch.setattr(*arguments)
        forget()

    yield setattr
    monkeypatch.undo()
    forget()


# --- a build of the CUDA kernels without code for the device ---


@pytest.fixture
def two_gpus(patch):
    """A machine with two cards and all backends, of which the driver takes the CUDA kernels on the second alone.
    Gives the questions that the driver was asked."""
    asked = []

    def code_error(index):
        asked.append(index)
        return "no kernel image is available for execution on the device" if index == 0 else ""

    for name, answer in {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "get_device_capability": lambda index: (8, 9),
        "get_device_name": lambda index: f"card {index}",
    }.items():
        patch(torch.cuda, name, answer)
    operators = types.SimpleNamespace(
        cuda_code_error=code_error,
        cuda_build=lambda: "13.0; 800,900",
        cpu_capability=torch.ops.stdano.cpu_capability,
    )
    patch(torch, "ops", types.SimpleNamespace(stdano=operators))
    patch(backends, "CUDA_EXTENSION_ERROR", None)
    patch(backends, "_load_triton", lambda: None)
    return asked


def test_auto_goes_on_to_triton_where_the_driver_takes_no_code(two_gpus):
    for _ in range(3):
        assert backends._best("cuda", 0, False) == "triton"
        assert backends._best("cuda", 1, False) == "cuda"
        assert backends._best("cuda", 1, True) == "cuda"
        assert backends._best("cuda", 1, False, True) == "triton"
        assert backends._best("cuda", 1, True, True) == "cuda"
    assert two_gpus == [0, 1], "the driver is asked once a device"


def test_float64_then_has_the_reference(two_gpus):
    with pytest.warns(RuntimeWarning, match=r"do not run on card 0 \(no kernel image .* not float64"):
        assert backends._best("cuda", 0, True) == "reference"


def test_backends_say_what_the_driver_said(two_gpus):
    status = stdano_kernels.backends()
    assert status["cuda"] == stdano_kernels.BackendStatus(
        False,
        "the CUDA kernels, built with CUDA 13.0 for compute capability 8.0, 9.0, do not run on card 0 (no kernel image "
        "is available for execution on the device); build them with TORCH_CUDA_ARCH_LIST=8.9",
        {"toolkit": "13.0", "architectures": "8.0, 9.0"},
    )
    assert status["triton"].available


@pytest.mark.parametrize("capability", ((7, 2), (7, 5), (12, 0)))
def test_the_oldest_device(two_gpus, patch, capability):
    patch(torch.cuda, "get_device_capability", lambda index: capability)
    error = "card 1 has compute capability 7.2; the kernels need 7.5" if capability == (7, 2) else None
    assert [backends._missing(name, 1, False) for name in ("cuda", "triton")] == [error, error]


def test_the_current_device_is_the_one_described(two_gpus, patch):
    assert not stdano_kernels.backends()["cuda"].available
    patch(torch.cuda, "current_device", lambda: 1)
    assert stdano_kernels.backends()["cuda"].available


# --- the version of Triton ---


@pytest.fixture
def fake_triton(patch, monkeypatch):
    """A Triton of a version, whose kernels load."""

    def install(version):
        patch(backends, "_triton_version", lambda: version)
        monkeypatch.setitem(sys.modules, "stdano_kernels.triton.ops", types.ModuleType("ops"))

    return install


@pytest.mark.parametrize("version", ("3.5.0", "3.6.0+git1234", "3.7.0.post1", "3.10.1", "4.0.0.dev20260101", "main"))
def test_versions_that_are_taken(fake_triton, version):
    fake_triton(version)
    assert backends._load_triton() is None


@pytest.mark.parametrize("version", ("3.4.0", "3.4.1+rocm6.4", "2.3.1", "3.0.0.post1"))
def test_versions_that_are_too_old(fake_triton, version):
    fake_triton(version)
    assert backends._load_triton() == f"Triton {version} is older than 3.5"


def test_a_triton_whose_distribution_has_another_name(patch, monkeypatch):
    """pytorch-triton, triton-windows, pytorch-triton-rocm: the module is there, metadata of "triton" is not."""
    version = importlib.metadata.version

    def hidden(name):
        if name == "triton":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    patch(importlib.metadata, "version", hidden)
    monkeypatch.setitem(sys.modules, "triton", types.SimpleNamespace(__version__="3.6.0+rocm"))
    monkeypatch.setitem(sys.modules, "stdano_kernels.triton.ops", types.ModuleType("ops"))
    assert backends._load_triton() is None
    assert stdano_kernels.backends()["triton"].details == {"triton": "3.6.0+rocm"}
    stdano.LIFNode()(make_x((4, 2, 3)))


@pytest.mark.parametrize("broken", (None, types.SimpleNamespace()), ids=("not installed", "not the real one"))
def test_without_a_triton_that_works(patch, monkeypatch, broken):
    patch(backends, "_missing", backends._missing)
    monkeypatch.setitem(sys.modules, "triton", broken)
    text = "not installed" if broken is None else "cannot be used here: AttributeError"
    assert text in backends._load_triton()
    assert stdano_kernels.backends()["triton"].details == {}
    assert stdano.LIFNode()(make_x((4, 2, 3))).shape == (4, 2, 3)


# --- what is left alone until it is needed ---


@pytest.fixture
def nothing_of_gpus(patch):
    """Fails whoever initialises CUDA or imports Triton, on a machine that seems to have both."""

    def refuse(*arguments):
        raise AssertionError("this must wait until a tensor is on a GPU")

    for name in ("_lazy_init", "current_device", "get_device_capability", "get_device_name"):
        patch(torch.cuda, name, refuse)
    patch(torch.cuda, "is_available", lambda: True)
    patch(backends, "CUDA_EXTENSION_ERROR", None)
    patch(backends, "_load_triton", refuse)
    patch(backends, "_triton_version", refuse)


@pytest.mark.parametrize("case", [case for case in CASES if re.match(r"\w+", case)[0] in stdano_kernels.__all__])
def test_functions_on_the_cpu(nothing_of_gpus, case):
    make_step(case, "cpu")()


@pytest.mark.parametrize("backend", ("cuda", "triton"))
def test_the_error_for_a_tensor_on_the_wrong_device(nothing_of_gpus, backend):
    with pytest.raises(ValueError, match=f'backend="{backend}" needs x on a cuda device, got cpu'):
        FUNCTIONS[NEURONS[0]](make_x((3, 2)), backend=backend)


def test_backends_say_that_they_initialise_cuda():
    assert re.search(r"initialises CUDA in this process: processes that\s+are forked", stdano_kernels.backends.__doc__)


THREADS = """
import sys, threading
from stdano_kernels import backends
backends = sys.modules["stdano_kernels.backends"]
barrier, results = threading.Barrier(4), []

def load():
    barrier.wait()
    results.append(backends._load_triton.__wrapped__())

threads = [threading.Thread(target=load) for _ in range(4)]
[t.start() for t in threads], [t.join() for t in threads]
assert results == [None] * 4, results
"""


@pytest.mark.slow
def test_threads_that_load_triton_at_once():
    pytest.importorskip("triton")
    subprocess.run([sys.executable, "-c", THREADS], check=True)
