"""The CUDA kernels as ptxas has compiled them, without a GPU: registers, spills, instructions, accesses."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

import stdano_kernels

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which brings cuobjdump"
)
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
CUDA = stdano_kernels.backends()["cuda"]
BUILT = [int(a.replace(".", "")) for a in CUDA.details.get("architectures", "").split(", ") if a]
needs_cuda_build = pytest.mark.skipif(not CUDA.details, reason=f"the CUDA kernels are not built: {CUDA.reason}")

# Of backward in float32, T a multiple of eight: instructions for an element.
INSTRUCTIONS = {"LIF": 40, "LLIF": 80, "SLIF": 110}
# Of the super neuron of these three.
ENCODE, SUPER_FOUR, SUPER_EIGHT = 110, 220, 180
CODE = 128 * 1024  # bytes that a multiprocessor keeps at hand
# A thread's registers: backward, of the neurons of a super neuron together, and of what serves every call.
REGISTERS, OF_SLIF, SUPER, GENERAL = 64, 80, 128, 128
OWN_BACKWARD = r"backward_kernelIvffLi8EJNS0_4PartINS0_\d+[LS]?LIF_step0ENS0_\d+[LS]?LIF_adjoint1"
CHANNELS = {"encode", "decode", "count", "super sums", "super backward", "channel sums", "channel affine", "sums"}
BITS = {"pack", "unpack"}


@needs_cuda_build
@pytest.mark.parametrize("architecture", BUILT)
def test_registers(architecture):
    """Of all kernels; nothing is spilled in a loop."""
    from _gpu_code import SUPER_NEURON, cuda_code

    codes = list(cuda_code(architecture, instructions=False))
    assert {"LIF", "LLIF", "SLIF", SUPER_NEURON} < {c.neuron for c in codes}
    assert {c.kind for c in codes} == CHANNELS | BITS | {"forward", "backward"}
    assert {c.dtype for c in codes} == {"float32", "half", "float64", "uint8"}
    for code in codes:
        if code.dtype == "float64" or code.kind == "sums":  # what serves checks; one small launch
            continue
        general = "general" in code.setting
        most = GENERAL if general and code.neuron else SUPER if code.kind == "super backward" else REGISTERS
        if code.kind == "backward" and code.neuron == "SLIF" and not general:
            most = OF_SLIF
        assert code.usage.registers <= most, f"{code} takes more than {most} registers"
        spilled = 8 if architecture == 75 and code.neuron == "SLIF" else 0  # once a thread, before its steps
        assert code.usage.local <= spilled, f"{code}: {code.usage.local} bytes of stack or spills"


def test_the_way_through_a_kernel():
    """A branch goes where arguments send it; where they do not say, the longer way counts."""
    from _sass import Instruction, Ways

    lines = [
        ("", "ISETP.NE.U32.AND", "P1, PT, RZ, c[0x0][0x168], PT"),
        ("", "ISETP.NE.AND.EX", "P0, PT, RZ, c[0x0][0x16c], PT, P1"),
        ("", "MOV", "R4, 0xff"),
        ("P0", "LOP3.LUT", "R4, R4, 0xfe, RZ, 0xc0, !PT"),  # bit 0 says that P0 is not set
        ("", "LOP3.LUT", "P2, RZ, R4, 0x1, RZ, 0xc0, !PT"),
        ("P2", "BRA", "0x80"),
        ("", "LDG.E", "R2, [R2.64]"),
        ("", "FADD", "R3, R2, R3"),
        ("", "EXIT", ""),
    ]
    code = [Instruction(16 * k, guard, name, tuple(of.split(", "))) for k, (guard, name, of) in enumerate(lines)]
    lengths = [len(Ways(code, 0x160, lambda at, value=v: value).whole()) for v in (0, 1, None)]
    assert lengths == [7, 9, 9]
    assert len(Ways(code, 0x160, lambda at: None, shorter=True).whole()) == 7


def check_instructions(code):
    assert code.barriers == 0, f"{code} waits"
    assert 16 * len(code.code) <= CODE, code
    if code.dtype == "float32":
        most = INSTRUCTIONS.get(code.neuron) if code.length == "T = 8, 16, .." else None
        if code.kind in ("encode", "super backward"):
            most = {"any T": ENCODE, "T = 4": SUPER_FOUR, "T = 8, 16, ..": SUPER_EIGHT}[code.length]
        assert most is None or code.instructions_per_element <= most, code
    if code.kind in ("forward", "encode", "decode", "channel affine"):  # several neighbours at once
        assert code.x_bits >= 4 * 8 * code.itemsize, code


@needs_cuda_build
def test_backward_of_the_papers_neurons():
    """On the first architecture."""
    from _gpu_code import cuda_code

    codes = list(cuda_code(BUILT[0], OWN_BACKWARD))
    assert sorted(c.neuron for c in codes) == ["LIF", "LLIF", "SLIF"]
    for code in codes:
        check_instructions(code)


@needs_cuda_build
@pytest.mark.slow
def test_instructions():
    """Of the fast kernels, in float32 and half, on the last architecture."""
    from _gpu_code import cuda_code

    codes = list(cuda_code(BUILT[-1], r"kernelIv|Ev(NS0_4Half|f)|Few(INS0_4Half|If)"))
    assert len(codes) > 50 and not any("general" in c.setting for c in codes)
    for code in codes:
        check_instructions(code)


def assert_rounded(ptx):
    """Every sum, difference and product says how it is rounded: where one does not, the driver that compiles the PTX
    for a later device may make a product and a sum one operation, and a spike flips."""
    operations = re.findall(r"\b((?:add|sub|mul|fma|mad)\.[a-z0-9.]*f(?:32|64)(?:x2)?)\b", ptx)
    assert len(operations) > 50 and {name.split(".")[1] for name in operations} == {"rn"}


@needs_cuda_build
@pytest.mark.slow
def test_the_driver_may_not_contract_the_cuda_kernels():
    from _gpu_code import library
    from _sass import tool

    assert_rounded(tool("cuobjdump", "-ptx", library()))


def test_the_report_says_what_it_is():
    """A table that nobody can take for a measurement."""
    import gpu_static_report

    assert "static estimate" in gpu_static_report.__doc__
    document = (Path(__file__).parent.parent / "docs" / "gpu_static_estimate.md").read_text()
    assert "A static estimate, no GPU measurement" in document
    assert "python benchmarks/gpu_static_report.py" in "".join(document.splitlines()[:4])
