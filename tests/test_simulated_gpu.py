"""The tests of gpu/ on a simulated CUDA device: the PTX that nvcc and Triton wrote, executed on the CPU through the
public functions, with every memory access checked and counted. Where there is a real device, pytest runs them there.
"""

import re
import shutil
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from gpusim import stand_ins
from processes import run
from selection import sample

import stdano_kernels
from stdano_kernels.toolkit import find_toolkit

ROOT = Path(__file__).parent.parent
TOOLKIT, WHY = find_toolkit(torch.version.cuda)

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real device, which runs tests/gpu itself"),
    pytest.mark.skipif(TOOLKIT is None, reason=f"the simulated device needs CUDA headers: {WHY}"),
]


def simulate(*command, folder=ROOT, **environment):
    """A Python command in a process that sees a simulated device."""
    variables = stand_ins.environment(PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1", **environment)
    variables = {name: value for name, value in variables.items() if "XDIST" not in name}
    return run([sys.executable, *command], cwd=folder, env=variables)


# What each process runs: a file of gpu/, the long ones a backend at a time. Triton takes minutes to compile what these
# need; the slow run has its kernels in the other files, in random declarations, and in front of the mutations below.
BY_BACKEND = [f"test_gpu_{name}.py" for name in ("kernels", "channels", "super", "graphs", "threshold")]
LONGEST = [(name, "triton") for name in BY_BACKEND]
SELECTIONS = [
    pytest.param(*selected, marks=pytest.mark.exhaustive if selected in LONGEST else pytest.mark.slow)
    for path in sorted((ROOT / "tests" / "gpu").glob("test_*.py"))
    for selected in product([path.name], ("not triton", "triton") if path.name in BY_BACKEND else ("",))
]


# Of crossed parameters the quick run's cases: the simulator is slow, and on a real device -m gpu runs them all.
SELECTED = "gpu and not slow and not exhaustive"


@pytest.mark.parametrize(("file", "keyword"), SELECTIONS)
def test_on_the_simulated_device(file, keyword):
    assert stdano_kernels.backends()["cuda"].details, stdano_kernels.backends()["cuda"].reason
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", SELECTED, f"tests/gpu/{file}", "-k", keyword)
    result = simulate(*command)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    print(result.stdout[-300:])
    assert "needs a CUDA device" not in result.stdout, "the simulated device was not there"
    assert re.search(r"\d+ (passed|skipped)", result.stdout)


# What a mutation is noticed by.
CHECKS = {
    "steps": """
x = make_x((25, 3, 37))
x[0, 0, :5] = 1.0  # u = 0 exactly
assert_equals_cpu("lif", x, backend="triton")
""",
    "alignment": """
x = make_x((4 * 64 + 1,))[1:].view(4, 64)
device = torch.cat([torch.zeros(1), x.flatten()]).cuda()[1:].view(4, 64)
assert torch.equal(stdano_kernels.lif(device, backend="triton").cpu(), stdano_kernels.lif(x))
""",
    "affine": """
x = make_x((9, 2, 3, 5))
assert_equals_cpu("lif", x, backend="triton", affine=make_affine(x))
""",
    "constants": """
x = make_x((4, 2, 3, 5))
assert_equals_cpu("llif", x, backend="triton", v_threshold=torch.tensor([0.9, 1.0, 1.1]))
""",
    "members": """
import test_gpu_super
test_gpu_super.assert_equals_cpu("triton", make_x((25, 2, 3, 5)), v_reset=0.1)
""",
    "norm": """
import test_gpu_channels
test_gpu_channels.test_bn_neuron_equals_the_cpu("triton", "lif", True)
""",
    "mixture": """
import test_gpu_super
test_gpu_super.test_super_neuron_equals_the_cpu("triton", True, torch.float32)
""",
}
# name: (file, text, replacement, check); each text stands in its file exactly once. Those of the CUDA kernels are in
# test_host_shim.py.
MUTATIONS = {
    "no program adds up for all": (
        "triton/finish.py",
        'sem="acq_rel") == channels - 1:',
        'sem="acq_rel") == channels:',
        "mixture",
    ),
    "one factor of the slope": ("triton/finish.py", "* scale * inverse * inverse", "* scale * inverse", "norm"),
    "what the mean loses as a float": (
        "triton/finish.py",
        "of_scale += shifted * of_shift",
        "of_scale += of_shift",
        "norm",
    ),
    "missing mask": (
        "triton/common.py",
        "live = tl.max_constancy(m < N, VECTOR)",
        "live = tl.max_constancy(m >= 0, VECTOR)",
        "steps",
    ),
    "firing > instead of >=": ("define/triton.py", '"spike": "{} >= 0"', '"spike": "{} > 0"', "steps"),
    "wrong stride": (
        "triton/memory.py",
        "HOW),)\n        row += inner\n",
        "HOW),)\n        row += inner + 1\n",
        "steps",
    ),
    "alignment taken for granted": (
        "triton/launch.py",
        "not backward and aligned and",
        "not backward and",
        "alignment",
    ),
    "a checkpoint too early": (
        "triton/memory.py",
        "(chunk - 1).to(tl.int64) * STATES",
        "(chunk * 0).to(tl.int64) * STATES",
        "steps",
    ),
    "a step that is not there": (
        "triton/scan.py",
        "there = k < steps if HOW.guarded else True",
        "there = True",
        "steps",
    ),
    "gradients from behind left out": (
        "triton/scan.py",
        "HOW.single and len(grad_ptrs) + len(SEQUENCES) == 0",
        "HOW.single",
        "constants",
    ),
    "no gradient through the state at rest": (
        "triton/scan.py",
        "rests[0][i], grads[i])",
        "rests[0][i], 0.0)",
        "constants",
    ),
    "a sum of the wrong channel": ("triton/memory.py", "channel * width + e % width", "e % width", "constants"),
    "affine's gradient without the centre": ("triton/scan.py", "own * x[k]", "own * (x[k] + affine[0])", "affine"),
    "a later part from rest": (
        "triton/channels.py",
        "for first in range(0, last, AHEAD):",
        "for first in range(0, last - STEPS, AHEAD):",
        "members",
    ),
    "a part from the states before another": (
        "triton/channels.py",
        "states = load_states(checkpoint_ptrs, first // STEPS",
        "states = load_states(checkpoint_ptrs, first // first",
        "members",
    ),
    "another neuron's spikes": ("triton/channels.py", "8 * (k % 4) + member", "8 * (k % 4)", "members"),
}
MUTANT = """
import sys
sys.path.insert(0, "tests/gpu"), sys.path.insert(0, "tests")
from gpu_common import assert_equals_cpu
from kernels_common import make_affine, make_x
import torch, stdano_kernels
assert stdano_kernels.__file__.startswith(sys.argv[1]), stdano_kernels.__file__
"""


# Each compiles kernels of its own, for a quarter of a minute.
SAMPLE = sample(MUTATIONS, each=6)
UNCHANGED = {  # by what is checked of them
    "few": {MUTATIONS[p.values[0]][3] for p in SAMPLE if p.marks[0].name == "slow"},
    "all": set(CHECKS),
}


def of_copy(checks, change, folder):
    """What a process says that runs checks on a copy of the project, and the copy's text that is changed in it.
    Triton's cache is shared: its kernels are found by what they depend on."""
    for name in ("stdano_kernels", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    if change is not None:
        file, text, replacement = change
        source = folder / "stdano_kernels" / file
        assert source.read_text().count(text) == 1, "the mutation must apply exactly once"
        source.write_text(source.read_text().replace(text, replacement))
    script = MUTANT + "".join(CHECKS[check] for check in checks) + 'print("fine")'
    return simulate("-c", script, str(folder), folder=folder, PYTHONPATH=str(folder))


@pytest.mark.parametrize(
    "which", [pytest.param("few", marks=pytest.mark.slow), pytest.param("all", marks=pytest.mark.exhaustive)]
)
def test_the_checks_pass_on_an_unchanged_copy(which, tmp_path):
    result = of_copy(sorted(UNCHANGED[which]), None, tmp_path)
    assert result.stdout == "fine\n", result.stderr[-3000:]


@pytest.mark.parametrize("mutation", SAMPLE)
def test_a_broken_triton_kernel_is_caught(mutation, tmp_path):
    *change, check = MUTATIONS[mutation]
    result = of_copy([check], change, tmp_path)
    assert result.returncode != 0 and ("AssertionError" in result.stderr or "PTXError" in result.stderr), (
        result.stdout + result.stderr[-3000:]
    )
