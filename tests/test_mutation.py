"""A broken kernel must fail a test: each mutation is built and a part of this suite run against it.

The build is one instruction set without optimisation, the other two being aliases of it, with the same numbers in all
bits: the generic one, which compiles in a quarter of the time, or AVX2, which has the loops for usual cases as well.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
from kernels_common import LEVELS
from processes import run
from torch.utils.cpp_extension import include_paths, library_paths

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif("x86-64-v3" not in LEVELS, reason="builds the kernels for AVX2"),
]

# name: (file, text, replacement); each text stands in its file exactly once.
MUTATIONS = {
    "firing > instead of >=": (
        "csrc/neurons.h",
        "return u >= 0;",
        "return u > 0;",
    ),
    "LIF: no gradient through the reset": (
        "csrc/neurons.h",
        "return p.detach_reset != 0 ? gs : gs + through_reset;",
        "return gs;",
    ),
    "hard reset: sign": (
        "csrc/neurons.h",
        "-gv * theta : gv * (p.v_reset - h);",
        "-gv * theta : gv * (h - p.v_reset);",
    ),
    "soft reset: sign of its gradient": (
        "csrc/neurons.h",
        "soft_reset ? -gv * theta : gv",
        "soft_reset ? gv * theta : gv",
    ),
    "soft reset: sign of the step": ("csrc/neurons.h", "h - times(s, theta)", "h + times(s, theta)"),
    "LIF: no threshold gradient": (
        "csrc/neurons.h",
        "b.decay, b.inverse_tau)), gthreshold};",
        "b.decay, b.inverse_tau)), 0};",
    ),
    "LLIF: no gradient of x through theta": (
        "csrc/neurons.h",
        "c.gain * gh - (p.detach_adapt != 0 ? real(0) : inhibited);",
        "c.gain * gh;",
    ),
    "LLIF: x < 0 instead of x <= 0": ("csrc/neurons.h", "x <= 0 ? through_theta", "x < 0 ? through_theta"),
    "LLIF: theta's gradient forgets the spike": (
        "csrc/neurons.h",
        "g.adapt - q - times(s, g.v) : g.adapt - q;",
        "g.adapt - times(s, g.v) : g.adapt;",
    ),
    "LLIF: v_threshold's gradient is left out": ("csrc/cpu/passes.h", "gthreshold[i] += gadapt[i];", ";"),
    "SLIF: p's gradient does not reach h": (
        "csrc/neurons.h",
        "weighted(sigma, through_spike) + times(s, gp);",
        "weighted(sigma, through_spike);",
    ),
    "SLIF: p's gradient does not reach the spike": (
        "csrc/neurons.h",
        "fma_(gp, b.u, spike_gradient<soft_reset>(p, gs, g.v, b.h, b.theta));",
        "spike_gradient<soft_reset>(p, gs, g.v, b.h, b.theta);",
    ),
    "SLIF: tau_min ignored in the gradient": (
        "csrc/neurons.h",
        "const bool unclamped = fma_(-p.rate, b.tanh, c.tau) >= p.tau_min;",
        "const bool unclamped = true;",
    ),
    "a checkpoint too far": (
        "csrc/cpu/passes.h",
        "at<real>(call.checkpoints, (chunk - 1) *",
        "at<real>(call.checkpoints, (chunk > 1 ? chunk - 2 : 0) *",
    ),
    "a checkpoint one step late": (
        "csrc/cpu/passes.h",
        "t > 0 && t % kCheckpointSteps == 0",
        "t > 1 && (t - 1) % kCheckpointSteps == 0",
    ),
}

# The tests that are run: plain floats over every option, and the float64 product, whose T reach three chunks.
SUBSET = ("test_reference.py", "test_kernels.py")
SELECTION = "(test_every_option and cpu) or test_at_the_threshold or (test_float64_equals_reference and 33-)"

COMPILE = [
    *("g++", "-O0", "-w", "-fPIC", "-std=c++20", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
    "-DPy_LIMITED_API=0x030A0000",
]
GENERIC, AVX2, AVX512 = "generic", "x86_64_v3", "x86_64_v4"


def aliases(built):
    others = [level for level in (GENERIC, AVX2, AVX512) if level != built]
    lines = [f"namespace {level} {{ extern const Kernels kernels = {built}::kernels; }}" for level in others]
    return "\n".join(['#include "kernels.h"', "namespace stdano {", *lines, "}"])


def compiler(source, output):
    folders = [*include_paths(), sysconfig.get_paths()["include"]]
    run([*COMPILE, *(f"-I{f}" for f in folders), "-c", source, "-o", output], check=True)


def copy_tree(to):
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("csrc", "stdano_kernels"):
        shutil.copytree(ROOT / name, to / name, ignore=ignore)
    shutil.copytree(ROOT / "tests", to / "tests", ignore=ignore)


def build_kernels(tree, unchanged, level):
    compiler(tree / f"csrc/cpu/{level}.cpp", tree / "kernels.o")
    library = tree / "stdano_kernels/_C.abi3.so"
    torch_libraries = [f"-L{folder}" for folder in library_paths()] + ["-lc10", "-ltorch_cpu", "-ltorch"]
    objects = [tree / "kernels.o", unchanged / f"{level}.o", unchanged / "ops.o", unchanged / "cpu_ops.o"]
    run(["g++", "-shared", *objects, *torch_libraries, "-o", library], check=True)


def run_subset(tree, files=SUBSET, selection=SELECTION):
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", selection]
    return run([*command, *(tree / "tests" / name for name in files)], env=environment, cwd=tree)


@pytest.fixture(scope="module")
def unchanged_objects(tmp_path_factory):
    """A folder with what no mutation touches, compiled once: schemas, operators, and for each level that is built the
    aliases of the others."""
    tree = tmp_path_factory.mktemp("unchanged")
    shutil.copytree(ROOT / "csrc", tree / "csrc")
    for level in (GENERIC, AVX2):
        (tree / f"csrc/cpu/aliases_of_{level}.cpp").write_text(aliases(level))
        compiler(tree / f"csrc/cpu/aliases_of_{level}.cpp", tree / f"{level}.o")
    compiler(tree / "csrc/ops.cpp", tree / "ops.o")
    compiler(tree / "csrc/cpu/ops.cpp", tree / "cpu_ops.o")
    return tree


def build_without_mutation(unchanged_objects, tree, level=GENERIC, **subset):
    """The same build without a mutation passes the subset; otherwise a failure below would mean nothing."""
    copy_tree(tree)
    build_kernels(tree, unchanged_objects, level)
    # That the subset runs against the copy, not against what is installed.
    where = "import stdano_kernels as s; print(s.__file__, s.backends()['cpu'])"
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    imported = run([sys.executable, "-c", where], env=environment, cwd=tree, check=True).stdout
    assert imported.startswith(str(tree)) and "available=True" in imported, imported
    result = run_subset(tree, **subset)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def passing_build(unchanged_objects, tmp_path_factory):
    return build_without_mutation(unchanged_objects, tmp_path_factory.mktemp("passing"))


def assert_caught(mutation, unchanged_objects, tree, level=GENERIC, **subset):
    """The mutation applies, its build loads, and some test of the subset fails."""
    file, text, replacement = mutation
    copy_tree(tree)
    source = (tree / file).read_text()
    assert source.count(text) == 1, "the mutation must apply exactly once"
    (tree / file).write_text(source.replace(text, replacement))
    build_kernels(tree, unchanged_objects, level)
    result = run_subset(tree, **subset)
    assert "is not available here" not in result.stdout, "the mutated library does not load"
    assert result.returncode == 1, "no test noticed: " + result.stdout[-3000:] + result.stderr[-3000:]


def test_the_unchanged_build_passes(passing_build):
    assert " passed" in passing_build


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_caught(mutation, unchanged_objects, tmp_path):
    assert_caught(MUTATIONS[mutation], unchanged_objects, tmp_path)
