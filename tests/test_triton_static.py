"""Every Triton kernel, compiled for several architectures without a GPU: registers, spills, instructions, accesses."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from kernels_common import NEURONS, PAPER
from test_gpu_static import assert_rounded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton and its cuobjdump"),
]
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
ARCHITECTURES = (86, 90, 120)  # 8.0 and 8.9 get what 8.6 does
# Registers of a thread. Nothing but what is kept of eight steps drives them, so that no limit is set: ptxas finds the
# balance with the instructions that fewer would cost.
PLAIN, PLAIN_ON_120, SUMS, EVERYTHING = 80, 88, 112, 144
# Of backward for an element, in float32: what a device can issue while it moves 12 bytes.
INSTRUCTIONS = {"LIF": 60, "LLIF": 120, "SLIF": 165}
SUPER = {"super_neuron_backward": 144, "super_neuron_encode": 112}
SEVEN = {"super_neuron_backward": 208, "super_neuron_encode": 216, "super_neuron_sums": 160}  # with all neurons
SPILLS = 8  # bytes, of the super neuron's backward where T leaves a rest


def check(code, registers, local=0):
    assert code.local <= local, f"{code}: {code.local} bytes of stack or spills"
    assert code.registers <= registers, f"{code} takes more than {registers} registers"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels(architecture):
    """Those of plain calls, and with learnable constants; of every length."""
    from _triton_code import triton_code

    codes = list(triton_code(architecture, main=True))
    assert len(codes) == len(PAPER) * (3 * 2 + 2 * 2 * 2 + 1)
    for code in codes:
        plain = PLAIN_ON_120 if architecture == 120 else PLAIN
        check(code, SUMS if "sums" in code.kind else plain)
        if "sums" not in code.kind:
            assert code.shared == 0 and code.barriers == 0, f"{code} shares memory or waits"
        if code.forward:
            assert code.widest_access >= 4 * 8 * code.itemsize, code
        elif code.dtype == "float32" and code.length:
            assert code.instructions_per_element <= INSTRUCTIONS[code.neuron], code


@pytest.mark.parametrize("neuron", NEURONS)
def test_kernels_with_other_options(neuron):
    """Surrogates, resets, states, sequences, constants of each kind, affine, and what is not aligned."""
    from _triton_code import _code_of_options

    for code in _code_of_options(neuron, 86):
        check(code, EVERYTHING if "sums" in code.kind else SUMS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_around_channels(architecture):
    """The super neuron's passes and BatchNorm's. Where double sums leave a thread of four neighbours, they change
    places through 4 KiB of shared memory."""
    from _triton_code import CHANNEL_KERNELS, triton_channel_code

    codes = list(triton_channel_code(architecture, main=architecture != 86))
    assert {c.kind for c in codes} == set(CHANNEL_KERNELS)
    for k, code in enumerate(codes):
        seven = architecture == 86 and k >= len(codes) - len(CHANNEL_KERNELS)
        spills = SPILLS if code.kind == "super_neuron_backward" else 0
        check(code, (SEVEN if seven else SUPER).get(code.kind, 96), spills)
        sums = code.kind in ("super_neuron_encode", "super_neuron_sums", "channel_sums")
        assert code.shared == 0 or (sums and code.shared <= 4096), code
    for code in codes[: len(CHANNEL_KERNELS)]:  # float32, aligned
        widths = {name for _, name, _ in code.opcodes if name.startswith("LDG")}
        assert "backward" in code.kind or any(".128" in name for name in widths) or "decode" in code.kind, code


@pytest.mark.parametrize("architecture", (90, 120))
def test_the_driver_may_not_contract_the_kernels(architecture):
    from _triton_code import compiled, recorded_calls, recorded_channel_calls

    calls = recorded_channel_calls(PAPER)
    for neuron in NEURONS:
        calls += recorded_calls(neuron, dtype=torch.float32, kinds=("channel", "neuron"), affine=True, outputs=True)
    assert_rounded("".join(compiled(kernel, arguments, architecture)[0].asm["ptx"] for kernel, arguments in calls))
