"""Triton kernels compiled for AMD's devices, without one: down to machine code, of which nothing is run."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="there is no Triton here")
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
by_device = pytest.mark.parametrize(("device", "warp"), (("gfx942", 64), ("gfx1100", 32)))
LAYOUT = r"(#\w+) = #ttg\.blocked<\{sizePerThread = \[(\d+)\], threadsPerWarp = \[(\d+)\], warpsPerCTA = \[(\d+)\]"


def check(call, device, warp):
    """No element twice in a program, and nothing outside registers; scalars may go to lanes of vector registers."""
    from _triton_code import compiled

    kernel, arguments = call
    texts = compiled(kernel, arguments, device, warp)[0].asm
    held = {name: int(a) * int(b) * int(c) for name, a, b, c in re.findall(LAYOUT, texts["ttgir"])}
    tensors = set(re.findall(r"tensor<(\d+)x[^#>]*, (#\w+)>", texts["ttgir"]))
    assert held and tensors
    for size, layout in tensors:
        assert int(size) % held[layout] == 0, f"{kernel.__name__}: {size} elements in {held[layout]} places"
    counts = dict(re.findall(r"\.(vgpr_spill_count|private_segment_fixed_size): +(\d+)", texts["amdgcn"]))
    assert counts == dict(vgpr_spill_count="0", private_segment_fixed_size="0"), kernel.__name__
    assert texts["hsaco"]


@by_device
def test_lif_and_sums(device, warp):
    from _triton_code import recorded_calls

    calls = recorded_calls("lif", steps=16, kinds=("channel",), warp=warp)
    assert [kernel.__name__ for kernel, _ in calls] == ["scan_forward", "scan_backward", "sum_partials"]
    for call in calls:
        check(call, device, warp)


@pytest.mark.exhaustive
@by_device
@pytest.mark.parametrize("steps", (4, 17))
def test_every_kernel(device, warp, steps):
    from _triton_code import CHANNEL_KERNELS, PAPER, recorded_calls, recorded_channel_calls

    channels = recorded_channel_calls(PAPER, steps=steps, warp=warp)
    assert {kernel.__name__ for kernel, _ in channels} == set(CHANNEL_KERNELS)
    for call in [call for neuron in PAPER for call in recorded_calls(neuron, steps=steps, warp=warp)] + channels:
        check(call, device, warp)
