"""The CUDA kernels without a GPU: whole launches on the host, under sanitizers, against the CPU kernels in all bits.

csrc/cuda/launch.h and what it includes are plain C++ but for a few words, which host_shim.h defines; a launch is a loop
over grid and block. What a GPU does in parallel, and what nvcc makes of the code, is for tests/gpu.
"""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def has_sanitizers():
    """A compiler names the library's path, or returns the bare name where there is none."""
    if shutil.which("g++") is None:
        return False
    command = ["g++", "-print-file-name=libasan.so"]
    return "/" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_sanitizers(), reason="needs g++ and its sanitizers"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="compares with the x86-64 kernels"),
]

# The flags that results depend on, as in setup.py.
COMPILE = ["g++", "-w", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-c"]
SANITIZE = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SANITIZE_MEMORY = ["-O0", "-fsanitize=address,alignment,null", "-fno-sanitize-recover=all"]  # compiles faster
NEURONS = ("LIF", "LLIF", "SLIF")
KERNELS, LAUNCH, ARGUMENTS = "cuda/kernels.h", "cuda/launch.h", "cuda/arguments.h"
OUTSIDE, ALIGNMENT, BITS = "AddressSanitizer", "misaligned address", "MISMATCH"

# name: (file in csrc, text, replacement, neuron, dtype, what notices); each text stands in its file exactly once. One
# neuron with one dtype and the hard reset compiles in 2 seconds.
MUTATIONS = {
    "forward: no mask": (KERNELS, "if (m >= a.g.N) return;", ";", "LIF", "float32", OUTSIDE),
    "forward: mask one neuron late": (KERNELS, "if (m >= a.g.N)", "if (m > a.g.N)", "LIF", "float32", OUTSIDE),
    "backward: no mask": (KERNELS, "if (m < a.g.N) walk_back", "walk_back", "LIF", "float32", OUTSIDE),
    "sums: no mask for threads": (
        KERNELS,
        "if (thread >= a.slices.slabs * columns) return;",
        ";",
        "LIF",
        "float32",
        OUTSIDE,
    ),
    "sums: no mask for neurons": (KERNELS, " && neuron[i] < a.g.N;", ";", "LIF", "float32", OUTSIDE),
    "firing > instead of >=": ("neurons.h", "return u >= 0;", "return u > 0;", "LIF", "float32", BITS),
    "forward: stride in time": (KERNELS, "++t, at += a.g.inner)", "++t, at += a.g.N)", "LIF", "float32", OUTSIDE),
    "forward: one element in time": (KERNELS, "++t, at += a.g.inner)", "++t, ++at)", "LIF", "float64", BITS),
    "backward: stride in time, loading": (
        KERNELS,
        "        at += a.g.inner;",
        "        at += a.g.N;",
        "LIF",
        "float32",
        OUTSIDE,
    ),
    "backward: stride in time, storing": (KERNELS, "at -= a.g.inner;", "at -= 1;", "LIF", "float32", OUTSIDE),
    "backward: first step of a chunk": (
        KERNELS,
        "offset(a, neuron) + first * a.g.inner;",
        "offset(a, neuron) + (first / 2) * a.g.inner;",
        "LIF",
        "float32",
        BITS,
    ),
    "backward: first chunk": (KERNELS, "(a.steps - 1) / K * K", "a.steps / K * K", "LIF", "float32", "null pointer"),
    "offset: T instead of T - 1": (
        ARGUMENTS,
        "(a.g.T - 1) * a.g.inner",
        "a.g.T * a.g.inner",
        "LIF",
        "float32",
        OUTSIDE,
    ),
    "offset: without inner": (ARGUMENTS, "* (a.g.T - 1) * a.g.inner;", "* (a.g.T - 1);", "LIF", "float32", ALIGNMENT),
    "offset: the first sequence alone": (
        ARGUMENTS,
        "m < a.g.inner ? m :",
        "m <= a.g.inner ? m :",
        "LIF",
        "float32",
        BITS,
    ),
    "channel: without its stride": (
        ARGUMENTS,
        "remainder(divide(m, a.channel_stride), ",
        "remainder(m, ",
        "LIF",
        "float32",
        BITS,
    ),
    "channel: beyond the last": (
        ARGUMENTS,
        "remainder(divide(m, a.channel_stride), a.channels);",
        "divide(m, a.channel_stride);",
        "LIF",
        "float32",
        OUTSIDE,
    ),
    "division: multiplier rounded down": (
        ARGUMENTS,
        "(power + out.value - 1)",
        "power",
        "LIF",
        "float64",
        "divided by",
    ),
    "division: shift too small": (
        ARGUMENTS,
        "uint64_t(1) << out.shift) < ",
        "uint64_t(2) << out.shift) < ",
        "LIF",
        "float64",
        "divided by",
    ),
    "launch: pointers are not checked": (
        LAUNCH,
        "% bytes == 0) && ...);",
        "% bytes == 0) || ... || true);",
        "LIF",
        "float32",
        ALIGNMENT,
    ),
    "launch: pointers checked to 4 bytes": (LAUNCH, "all_aligned(16, ", "all_aligned(4, ", "LIF", "float32", ALIGNMENT),
    "launch: inner is not checked": (LAUNCH, "call.g.inner % width == 0 &&", "", "LIF", "float32", OUTSIDE),
    "launch: a block too few": (LAUNCH, "((threads + block - 1) / block)", "(threads / block)", "LIF", "float32", BITS),
    "launch: v0 is not checked": (LAUNCH, " call.v0, ", " ", "LLIF", "float32", ALIGNMENT),
    "launch: adapt0 is not checked": (
        LAUNCH,
        "call.v0, call.adapt0, call.v,",
        "call.v0, call.v,",
        "LLIF",
        "float32",
        ALIGNMENT,
    ),
    "launch: checkpoints are not checked": (
        LAUNCH,
        "call.adapt, call.checkpoints);",
        "call.adapt);",
        "LLIF",
        "float32",
        ALIGNMENT,
    ),
    "forward: a checkpoint too far": (
        KERNELS,
        "(t / checkpoint_steps<real> - 1) *",
        "(t / checkpoint_steps<real>) *",
        "LLIF",
        "float32",
        OUTSIDE,
    ),
    "forward: a checkpoint one step late": (
        KERNELS,
        "t > 0 && t % checkpoint_steps<real> == 0",
        "t > 1 && (t - 1) % checkpoint_steps<real> == 0",
        "LLIF",
        "float32",
        BITS,
    ),
    "backward: a checkpoint too far": (KERNELS, "(first / K - 1) *", "(first / K) *", "LLIF", "float32", OUTSIDE),
    "backward: a checkpoint too early": (
        KERNELS,
        "(first / K - 1) *",
        "(first / K > 1 ? first / K - 2 : 0) *",
        "LLIF",
        "float32",
        BITS,
    ),
    "backward: theta's checkpoint": (KERNELS, "from[a.g.N] : real(0)}", "from[0] : real(0)}", "LLIF", "float32", BITS),
    "LLIF: v_threshold's gradient is left out": (
        KERNELS,
        "sums.threshold += g.adapt;",
        ";",
        "LLIF",
        "float32",
        "grad_threshold",
    ),
    "sums: a slab's first neuron": (
        KERNELS,
        "* (a.slices.rows - 1) * columns + thread;",
        "* columns + thread;",
        "LIF",
        "float32",
        BITS,
    ),
    "sums: every slab's first neuron": (
        KERNELS,
        "divide(thread, a.columns) * (a.slices.rows - 1) * columns + thread;",
        "thread;",
        "LIF",
        "float32",
        BITS,
    ),
    "sums: one row a slab": (KERNELS, "row < a.slices.rows &&", "row < 1 &&", "LIF", "float32", BITS),
    "sums: columns in a row": (KERNELS, "neuron[i] += columns;", "neuron[i] += 1;", "LIF", "float32", BITS),
    "sums: threshold over tau": (
        KERNELS,
        "a.partial[a.slices.slabs * columns + thread]",
        "a.partial[thread]",
        "LIF",
        "float32",
        BITS,
    ),
}


def run(command):
    subprocess.run(command, check=True, timeout=300)


def compile_kernels(tree, neuron, output, dtype=None):
    flags = [f"-DNEURON={neuron}", f"-DNEURON_INDEX={NEURONS.index(neuron)}"]
    flags += [*SANITIZE_MEMORY, f"-DDTYPE={dtype}"] if dtype else SANITIZE
    source = ROOT / "tests/host_shim_kernels.cpp"
    run([*COMPILE, *flags, f"-I{ROOT / 'tests'}", f"-I{tree}", source, "-o", output])


def link_and_run(objects, program):
    run(["g++", *SANITIZE, *objects, "-o", program])
    # A leak is no business of these tests, and looking for one fails under a debugger.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run([program], env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def unchanged_objects(tmp_path_factory):
    """What no mutation touches: the program, and the CPU kernels that it compares with."""
    folder = tmp_path_factory.mktemp("unchanged")
    program, kernels = folder / "main.o", folder / "cpu.o"
    include = [f"-I{ROOT / 'tests'}", f"-I{ROOT / 'csrc'}"]
    commands = [
        [*COMPILE, *SANITIZE, *include, ROOT / "tests/host_shim_main.cpp", "-o", program],
        [*COMPILE, "-O1", ROOT / "csrc/cpu/x86_64_v2.cpp", "-o", kernels],
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, commands))
    return [program, kernels]


@pytest.fixture(scope="module")
def passing_run(unchanged_objects, tmp_path_factory):
    """All neurons and dtypes, unmutated; if these fail, a failure below means nothing."""
    folder = tmp_path_factory.mktemp("passing")
    objects = [folder / f"{neuron}.o" for neuron in NEURONS]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_kernels, [ROOT / "csrc"] * 3, NEURONS, objects))
    result = link_and_run([*unchanged_objects, *objects], folder / "program")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def test_launches_equal_the_cpu_kernels(passing_run):
    count, rest = passing_run.split(" cases, ")
    assert int(count) > 2000
    assert rest == "0 mismatches, 0 wrong quotients\n"


@pytest.mark.parametrize("neuron, dtype", sorted({m[3:5] for m in MUTATIONS.values()}))
def test_the_small_builds_pass(neuron, dtype, unchanged_objects, tmp_path):
    """Those that mutations are built with, without one."""
    compile_kernels(ROOT / "csrc", neuron, tmp_path / "kernels.o", dtype)
    result = link_and_run([*unchanged_objects, tmp_path / "kernels.o"], tmp_path / "program")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_caught(mutation, passing_run, unchanged_objects, tmp_path):
    file, text, replacement, neuron, dtype, notice = MUTATIONS[mutation]
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    source = (tmp_path / "csrc" / file).read_text()
    assert source.count(text) == 1, "the mutation must apply exactly once"
    (tmp_path / "csrc" / file).write_text(source.replace(text, replacement))
    compile_kernels(tmp_path / "csrc", neuron, tmp_path / "kernels.o", dtype)
    result = link_and_run([*unchanged_objects, tmp_path / "kernels.o"], tmp_path / "program")
    output = result.stdout + result.stderr
    assert result.returncode != 0, "nothing noticed: " + output[-3000:]
    assert notice in output, output[-3000:]
