"""Every CUDA kernel, compiled for every architecture without a GPU: registers, spills, shared memory, accesses."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

import stdano_kernels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton and its cuobjdump"),
]
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
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
    assert {c.neuron for c in codes} == {"LIF", "LLIF", "SLIF", ""}
    assert {c.dtype for c in codes} == {"float32", "float64", "float16", "bfloat16"}
    assert {c.kind for c in codes if not c.neuron} == CHANNELS | {"float64", "sums"}
    assert len(codes) > 400
    for code in codes:
        spills = SPILLS_ON_120 if architecture == 120 else {}
        registers = 128 if (architecture, code.kind) == (120, "super backward") else LIMITS.get(code.kind, 64)
        check(code, registers, spills.get((code.neuron, code.kind), 0))


def assert_rounded(ptx):
    """Every sum, difference and product says how it is rounded: where one does not, the driver that compiles the PTX
    for a later device may make a product and a sum one operation, and a spike flips."""
    operations = re.findall(r"\b((?:add|sub|mul|fma|mad)\.[a-z0-9.]*f(?:32|64)(?:x2)?)\b", ptx)
    assert len(operations) > 50 and {name.split(".")[1] for name in operations} == {"rn"}


@needs_cuda_build
def test_the_driver_may_not_contract_the_cuda_kernels():
    from _gpu_code import _library, _tool

    assert_rounded(_tool("cuobjdump", "-ptx", _library()))


def test_the_report_says_what_it_is():
    """A table that nobody can take for a measurement."""
    import gpu_static_report

    assert "static estimate" in gpu_static_report.__doc__
    document = Path(__file__).parent.parent / "docs" / "gpu_static_estimate.md"
    assert "A static estimate, no GPU measurement" in document.read_text()
