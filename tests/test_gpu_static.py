"""Every GPU kernel, compiled for every architecture without a GPU: registers, spills, shared memory, accesses."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import stdano_kernels
from stdano_kernels.registration import NEURONS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton and its cuobjdump"),
]
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
ARCHITECTURES = (86, 90, 120)  # of Triton; 8.0 and 8.9 get what 8.6 does
CUDA = stdano_kernels.backends()["cuda"]
BUILT = [int(a.replace(".", "")) for a in CUDA.details.get("architectures", "").split(", ") if a]
needs_cuda_build = pytest.mark.skipif(not CUDA.details, reason=f"the CUDA kernels are not built: {CUDA.reason}")

CHECKS = ("float64", "soft spikes")  # what serves checks
LIMITS = {"float64": 128, "soft spikes": 128, "sums": 128, "backward with sums and affine": 72, "super backward": 96}
# Bytes: LLIF with learnable constants, the super neuron's backward, and that in float64, which serves checks.
SPILLS_ON_120 = {("LLIF", "backward with sums"): 8, ("", "super backward"): 32, ("", "float64"): 88}
CHANNELS = {"encode", "decode", "super sums", "super backward", "channel sums", "channel affine"}
FIRST_STAGES = ("super sums", "channel sums")  # sums within a thread


def check(code, registers=64, local=0):
    """What holds for each kernel; sums of constants are reductions, which may share memory and wait for each other."""
    assert code.local <= local, f"{code}: {code.local} bytes of stack or spills"
    if local == 0:
        assert not any(name.startswith(("LDL", "STL")) for _, name, _ in code.opcodes), f"{code} uses local memory"
    assert code.registers <= registers, f"{code} takes more than {registers} registers"
    if code.kind in FIRST_STAGES or ("sums" not in code.kind and code.kind not in CHECKS):
        assert code.shared == 0 and code.barriers == 0, f"{code} shares memory or waits"
    if code.kind in ("decode", "channel affine") and code.aligned:  # a table leaves room for four neighbours
        assert code.widest_access == 4 * 8 * code.itemsize, code
    elif (code.forward or code.kind == "forward and affine") and code.aligned:  # there of four states
        assert code.widest_access == 128, code


@needs_cuda_build
@pytest.mark.parametrize("architecture", BUILT)
def test_cuda_kernels(architecture):
    """All of them, within LIMITS; on sm_120 a few may spill."""
    from _gpu_code import cuda_code

    codes = list(cuda_code(architecture, main=False))
    assert {c.neuron for c in codes} == {*(n.upper() for n in NEURONS), ""}
    assert {c.dtype for c in codes} == {"float32", "float64", "float16", "bfloat16"}
    assert {c.kind for c in codes if not c.neuron} == CHANNELS | {"float64", "sums"}
    assert len(codes) > 400
    for code in codes:
        spills = SPILLS_ON_120 if architecture == 120 else {}
        registers = 128 if (architecture, code.kind) == (120, "super backward") else LIMITS.get(code.kind, 64)
        check(code, registers, spills.get((code.neuron, code.kind), 0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_triton_kernels(architecture):
    """Those of plain calls, and with learnable constants, whose sums take up to 96 registers here."""
    from _gpu_code import triton_code

    codes = list(triton_code(architecture, main=True))
    assert len(codes) == 27
    for code in codes:
        check(code, 96 if "sums" in code.kind else 64)


@pytest.mark.parametrize("neuron", NEURONS)
def test_triton_kernels_with_other_options(neuron):
    """Surrogates, resets and the form for tensors that are not aligned."""
    from _gpu_code import ops, recorded_calls, triton_kernel

    variants = [(s, s % 2 == 0, s % 3 == 2) for s in range(6)]
    for surrogate, soft_reset, unaligned in variants:
        for kernel, arguments in recorded_calls(neuron, torch.float32, surrogate, soft_reset, False, int(unaligned)):
            kind = "forward" if kernel in ops._FORWARD_KERNELS.values() else "backward"
            check(triton_kernel(neuron, kind, torch.float32, 86, kernel, arguments, not unaligned))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_triton_kernels_around_channels(architecture):
    """The super neuron's passes, BatchNorm's, and neurons with an affine input, whose sums take registers. Most takes
    the super neuron's backward with one candidate, SLIF, in half precision. Nothing is spilled. Where double sums leave
    a thread of four neighbours, they change places through 4 KiB of shared memory."""
    from _gpu_code import CHANNEL_KERNELS, triton_channel_code

    codes = list(triton_channel_code(architecture, main=architecture != 86))
    assert {c.kind for c in codes} == {*CHANNEL_KERNELS, "forward and affine", "backward with sums and affine"}
    for code in codes:
        assert code.local == 0 and not any(name.startswith(("LDL", "STL")) for _, name, _ in code.opcodes), code
        one_half = code.kind == "super_neuron_backward" and code.dtype == "float16"
        limit = 64 if "affine" in code.kind and "backward" not in code.kind else 108 if one_half else 96
        assert code.registers <= limit, code
        sums = code.kind in ("super_neuron_encode", "super_neuron_sums", "channel_sums")
        assert code.shared == 0 or (sums and code.shared == 4096), code
    for code in codes[: len(CHANNEL_KERNELS)]:  # float32, aligned
        widths = {name for _, name, _ in code.opcodes if name.startswith("LDG")}
        assert "backward" in code.kind or any(".128" in name for name in widths) or "decode" in code.kind, code


def assert_rounded(ptx):
    """Every sum, difference and product says how it is rounded: where one does not, the driver that compiles the PTX
    for a later device may make a product and a sum one operation, and a spike flips."""
    operations = re.findall(r"\b((?:add|sub|mul|fma|mad)\.[a-z0-9.]*f(?:32|64)(?:x2)?)\b", ptx)
    assert len(operations) > 50 and {name.split(".")[1] for name in operations} == {"rn"}


@needs_cuda_build
def test_the_driver_may_not_contract_the_cuda_kernels():
    from _gpu_code import _library, _tool

    assert_rounded(_tool("cuobjdump", "-ptx", _library()))


@pytest.mark.parametrize("architecture", (90, 120))
def test_the_driver_may_not_contract_the_triton_kernels(architecture):
    from _gpu_code import _compile, ops, recorded_calls, recorded_channel_calls

    calls = recorded_channel_calls(torch.float32, 0, False, 7, 0)
    for neuron in ops._FORWARD_KERNELS:
        calls += recorded_calls(neuron, torch.float32, 0, True, True, 0, torch.ones(3, 4))
    assert_rounded("".join(_compile(kernel, arguments, architecture)[0].asm["ptx"] for kernel, arguments in calls))


def test_the_report_says_what_it_is():
    """A table that nobody can take for a measurement."""
    import gpu_static_report

    assert "static estimate" in gpu_static_report.__doc__
    document = Path(__file__).parent.parent / "docs" / "gpu_static_estimate.md"
    assert "A static estimate, no GPU measurement" in document.read_text()
