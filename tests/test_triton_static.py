"""Triton kernels compiled without a GPU: registers, spills, accesses, and instructions beside those of CUDA's."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from test_gpu_static import BUILT, OWN_BACKWARD, assert_rounded

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton and its cuobjdump")
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
ARCHITECTURE = 86  # 9.0 gets nearly the same; the last test compiles for that
MORE = 1.5  # times as many instructions for an element as CUDA's kernels may these have
# Registers of a thread: of plain calls, with learnable constants, with everything; around channels.
PLAIN, SUMS, EVERYTHING = 80, 112, 144
CHANNELS = {"super backward": 144, "encode": 112}


def check(code, registers):
    assert code.usage.local == 0, f"{code}: {code.usage.local} bytes of stack or spills"
    assert code.usage.registers <= registers, f"{code} takes more than {registers} registers"


def check_beside_cuda(codes, wanted):
    """Of calls that both have a kernel for; where the CUDA kernels are not built for the device, there is none."""
    from _gpu_code import MOVED, cuda_code

    if ARCHITECTURE not in BUILT:
        return
    lengths = {
        "T = 4": 4,
        "T = 8, 16, ..": 16,
        "any T": 16,
    }  # what CUDA's forward does for any T, Triton does best here
    limit = {}
    for other in cuda_code(ARCHITECTURE, wanted):
        if other.kind in MOVED and other.dtype == "float32":
            key = other.kind, other.neuron if "ward" in other.kind else "", lengths[other.length]
            limit[key] = min(MORE * other.instructions_per_element, limit.get(key, 1e9))
    found = 0
    for code in codes:
        length = int(code.length.removeprefix("T = "))
        key = code.kind, code.neuron if "ward" in code.kind else "", length
        if code.dtype == "float32" and key in limit:
            assert code.instructions_per_element <= limit[key], code
            found += 1
    assert found


def test_backward_of_lif():
    from _triton_code import recorded_calls, triton_kernel

    _, call = recorded_calls("lif", steps=16)
    code = triton_kernel(call, torch.float32, 16, ARCHITECTURE, "lif")
    check(code, PLAIN)
    check_beside_cuda([code], OWN_BACKWARD.replace("[LS]?", ""))


def test_the_oldest_device():
    """Which has no instructions for bfloat16."""
    from _triton_code import recorded_calls, triton_kernel

    for call in recorded_calls("slif", dtype=torch.bfloat16, steps=16):
        check(triton_kernel(call, torch.bfloat16, 16, 75, "slif"), PLAIN)


@pytest.mark.exhaustive
def test_kernels():
    """Those of plain calls, of LIF in half precision and with other T too; the super neuron's passes and BatchNorm's.
    Where double sums leave a thread of four neighbours, they change places through 4 KiB of shared memory."""
    from _triton_code import CHANNEL_KERNELS, triton_channel_code, triton_code

    codes = [*triton_code(ARCHITECTURE, lengths=(16,)), *triton_code(ARCHITECTURE, neurons=("lif",), lengths=(4, 17))]
    codes += triton_code(ARCHITECTURE, neurons=("lif",), lengths=(16,), dtypes=(torch.float16,))
    channels = list(triton_channel_code(ARCHITECTURE))
    assert (len(codes), len(channels)) == (12, len(CHANNEL_KERNELS))
    for code in codes:
        check(code, PLAIN)
        assert code.usage.shared == 0 and code.barriers == 0, f"{code} shares memory or waits"
        assert code.x_bits == 8 * code.itemsize * (4 if code.kind == "forward" else 1), code
    for code in channels:
        check(code, CHANNELS.get(code.kind, 96))
        assert code.usage.shared <= (4096 if code.kind in ("encode", "super sums", "channel sums") else 0), code
        assert code.x_bits == (32 if code.kind == "super backward" else 128), code
    check_beside_cuda(codes + channels, r"LIF_step0|decode|channel|super")


@pytest.mark.slow
def test_kernels_with_other_options():
    """Learnable constants; initial states, sequences and their gradients, BatchNorm in front."""
    from _triton_code import calls_of_options, compiled, triton_kernel

    texts = []
    for call, setting in calls_of_options("llif", surrogates=1):
        code = triton_kernel(call, torch.float32, 16, 90, "llif", setting)
        check(code, EVERYTHING if setting == "everything" else SUMS)
        texts.append(compiled(*call, 90)[0].asm["ptx"])  # which Triton has kept
    assert_rounded("".join(texts))
