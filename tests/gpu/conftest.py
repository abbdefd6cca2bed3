"""The tests of this folder need a CUDA device. Where torch finds none they are skipped; test_simulated_gpu.py, one
folder up, runs them all the same, on a simulated one."""

from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from gpusim import device

cudasim = device if device.active() else None  # where this process runs on the simulated device


def pytest_collection_modifyitems(items):
    for item in items:
        if __file__.removesuffix("conftest.py") in str(item.path):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch.cuda.is_available() is False"))


@pytest.fixture(autouse=True)
def no_failed_kernel():
    """A kernel that fails outside of what a test looks at, in a launch that nobody checks."""
    before = len(cudasim.ERRORS) if cudasim else 0
    yield
    if cudasim:
        assert cudasim.ERRORS[before:] == []


@dataclass
class Launch:
    """A kernel that ran; what it moved in global memory is known on the simulated device alone."""

    name: str
    loaded: int | None = None
    stored: int | None = None


@contextmanager
def record_launches():
    """Lists the kernels launched inside the block."""
    launches = []
    if cudasim is not None:
        before = len(cudasim.LOG)
        yield launches
        launches += [Launch(r.name, r.bytes_loaded, r.bytes_stored) for r in cudasim.LOG[before:]]
        return
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        yield launches
        torch.cuda.synchronize()
    kernels = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    launches += [Launch(e.name) for e in kernels if not e.name.startswith(("Memcpy", "Memset"))]


@pytest.fixture
def launches():
    return record_launches


@pytest.fixture
def graphs():
    """Skips where graphs cannot be captured."""
    if cudasim:
        pytest.skip("the simulated device captures no graphs")
