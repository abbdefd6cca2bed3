"""No train step copies from host to device or waits for the device, which would also keep it out of a CUDA graph. What
the steps do is seen without a device: on "meta" tensors, which the operators of the CUDA backend take as well."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from kernels_common import NEURONS
from step_common import CASES, COVERED, GROUP_CASES, make_step, no_waits
from torch import nn

import stdano
import stdano_kernels
from stdano_kernels import compiler

backends = sys.modules["stdano_kernels.backends"]  # whose name in the package is the function's


@pytest.fixture
def meta_serves_as_cuda(monkeypatch):
    monkeypatch.setitem(backends._DEVICES, "cuda", "meta")
    monkeypatch.setattr(backends, "_missing", lambda backend, index, float64: None)
    monkeypatch.setattr(compiler, "not_on_device", lambda name, is_double: None)


@pytest.fixture
def group(monkeypatch):
    """A process group that looks as if it had a second process."""
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("needs gloo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, group=None: None)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.parametrize("case", CASES)
def test_a_train_step_does_not_wait(meta_serves_as_cuda, case):
    step = make_step(case, "meta")
    with no_waits():
        results = step()
    assert all(t.device.type == "meta" for t in results)


@pytest.mark.parametrize("case", GROUP_CASES)
def test_nor_does_it_with_a_process_group(meta_serves_as_cuda, group, case):
    step = make_step(case, "meta", group=group)
    with no_waits():
        step()


def test_every_public_function_and_module_has_a_step():
    others = {"backends", "check", "function", "two_level_checkpoints"}
    functions = {name for name in stdano_kernels.__all__ if name.islower()} - others
    modules = {n for n in stdano.__all__ if isinstance(c := getattr(stdano, n), type) and issubclass(c, nn.Module)}
    assert functions | modules - {"BaseNode"} <= COVERED


WAITS = {
    "a tensor of numbers": lambda x: x.new_tensor([1.0]),
    "a list as an index": lambda x: x[[1, 0]],
    "a list as the place of a value": lambda x: x.__setitem__([1, 0], x[:2]),
    "an index of the CPU's": lambda x: x[torch.zeros(2, dtype=torch.int64)],
    "a copy": lambda x: torch.zeros(3).to(x.device),
    "a value": lambda x: float(x.sum()),
    "a comparison": lambda x: bool((x > 0).any()),
}


@pytest.mark.parametrize("wait", WAITS)
def test_waits_are_noticed(wait):
    with no_waits(), pytest.raises(AssertionError):
        WAITS[wait](torch.zeros(3, 3, device="meta"))


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_the_launchers_of_triton_do_not_wait(monkeypatch):
    """What they do around a launch, in Python too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    from _triton_code import recorded_calls, recorded_channel_calls

    with no_waits():
        for neuron in NEURONS:
            for learned in (False, True):
                recorded_calls(neuron, kinds=("channel", "neuron") if learned else ("number",), affine=learned)
        recorded_channel_calls(tuple(NEURONS))
