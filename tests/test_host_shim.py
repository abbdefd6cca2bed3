"""The CUDA kernels without a GPU: whole launches on the host, under sanitizers, against the CPU kernels in all bits.

csrc/cuda/launch.h and what it includes are plain C++ but for a few words, which host_shim.h defines; a launch is a loop
over grid and block. What a GPU does in parallel, and what nvcc makes of the code, is for tests/gpu.
"""

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from processes import run

from stdano_kernels import registration

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
]

# The flags that results depend on, as in setup.py.
COMPILE = ["g++", "-w", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-c"]
SANITIZE = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SANITIZE_MEMORY = ["-O0", "-fsanitize=address,alignment,null", "-fno-sanitize-recover=all"]  # compiles faster
NEURONS = tuple(name.upper() for name in registration.NEURONS)
OTHERS = "super neuron and channels"
KERNELS, LAUNCH, ARGUMENTS, GRID = "cuda/kernels.h", "cuda/launch.h", "cuda/arguments.h", "cuda/grid.h"
CHANNELS, SUPER = "cuda/channels.h", "cuda/super_neuron.h"
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
        GRID,
        "% bytes == 0) && ...);",
        "% bytes == 0) || ... || true);",
        "LIF",
        "float32",
        ALIGNMENT,
    ),
    "launch: pointers checked to 4 bytes": (LAUNCH, "all_aligned(16, ", "all_aligned(4, ", "LIF", "float32", ALIGNMENT),
    "launch: inner is not checked": (LAUNCH, "call.g.inner % width == 0 &&", "", "LIF", "float32", OUTSIDE),
    "launch: a block too few": (GRID, "((threads + block - 1) / block)", "(threads / block)", "LIF", "float32", BITS),
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
        "a.partial[sum_threshold * size + thread]",
        "a.partial[sum_tau * size + thread]",
        "LIF",
        "float32",
        BITS,
    ),
    "affine: without shift": (
        ARGUMENTS,
        "fma_(map.scale, kept, map.shift)",
        "map.scale * kept",
        "LIF",
        "float32",
        BITS,
    ),
    "affine: without centre": (ARGUMENTS, "x - map.centre : x;", "x : x;", "LIF", "float32", BITS),
    "affine: neighbours share a channel": (
        LAUNCH,
        "a.one_channel = call.g.channel_stride % fewer == 0;",
        "a.one_channel = true;",
        "LIF",
        "float32",
        BITS,
    ),
    "affine: neighbours share constants": (
        LAUNCH,
        "(a.one_channel || (!call.tau && !call.threshold))",
        "true",
        "LIF",
        "float32",
        BITS,
    ),
    "affine: gradient not scaled": (KERNELS, "out.x = map.scale * out.x;", ";", "LIF", "float32", BITS),
    "affine: sum for scale without x": (
        KERNELS,
        "fma_(out.x, in[k], sums.scale)",
        "sums.scale + out.x",
        "LIF",
        "float32",
        "sum_scale",
    ),
    "affine: sum for shift of the scaled gradient": (
        KERNELS,
        "sums.shift += out.x;",
        "sums.shift += map.scale * out.x;",
        "LIF",
        "float32",
        "sum_shift",
    ),
    "columns: no mask for threads": (
        CHANNELS,
        "if (thread >= a.slices.slabs * columns) return false;",
        ";",
        OTHERS,
        "float32",
        OUTSIDE,
    ),
    "columns: no mask for neurons": (CHANNELS, " && m < a.g.N;", ";", OTHERS, "float32", OUTSIDE),
    "columns: a slab's first neuron": (
        CHANNELS,
        "* (a.slices.rows - 1) * columns + thread;",
        "* columns + thread;",
        OTHERS,
        "float32",
        BITS,
    ),
    "channel sums: squares in float": (
        CHANNELS,
        "sums[1] += value * value;",
        "sums[1] += static_cast<float>(value * value);",
        OTHERS,
        "float32",
        "squares",
    ),
    "table: neighbours share a channel": (
        CHANNELS,
        "a.one_channel = g.channel_stride % width == 0;",
        "a.one_channel = true;",
        OTHERS,
        "float32",
        BITS,
    ),
    "table: pointers are not checked": (
        CHANNELS,
        "all_aligned(width * sizeof(*pointers), pointers)",
        "all_aligned(1, pointers)",
        OTHERS,
        "float32",
        ALIGNMENT,
    ),
    "encode: SLIF's bit": (SUPER, "slif) ? 4 : 0;", "slif) ? 2 : 0;", OTHERS, "float32", BITS),
    "encode: the hard reset alone": (SUPER, "state = member.soft_reset ?", "state = false ?", OTHERS, "float32", BITS),
    "decode: a row too early": (
        SUPER,
        "table[1 + k].items[i] : real(0)",
        "table[k].items[i] : real(0)",
        OTHERS,
        "float32",
        BITS,
    ),
    "super sums: of one neuron alone": (
        SUPER,
        "of_neuron[1 + k] += (code >> k & 1)",
        "of_neuron[1 + k] += (code >> 2 & 1)",
        OTHERS,
        "float32",
        "lif at",
    ),
    "super backward: no mask": (
        SUPER,
        "if (m >= a.g.N) return;\n  State<real> lif{",
        ";\n  State<real> lif{",
        OTHERS,
        "float32",
        OUTSIDE,
    ),
    "super backward: fired for silent": (
        SUPER,
        "fired ? with_spike : silent",
        "fired ? silent : with_spike",
        OTHERS,
        "float32",
        BITS,
    ),
    "super backward: codes of other steps": (SUPER, "<< (kSuperNeurons * i);", "<< (2 * i);", OTHERS, "float32", BITS),
    "super backward: chunks begin at the zero state": (SUPER, "t < chunk.first;", "t < 0;", OTHERS, "float32", BITS),
    "super backward: the last neuron alone": (
        SUPER,
        "chunk.gx[i] += N::",
        "chunk.gx[i] = N::",
        OTHERS,
        "float32",
        BITS,
    ),
}


build = partial(run, check=True)


def compile_kernels(tree, neuron, output, dtype=None):
    """Those of one neuron, or of all others."""
    if neuron == OTHERS:
        flags, source = [], ROOT / "tests/host_shim_channels.cpp"
    else:
        flags = [f"-DNEURON={neuron}", f"-DNEURON_INDEX={NEURONS.index(neuron)}"]
        source = ROOT / "tests/host_shim_kernels.cpp"
    flags += [*SANITIZE_MEMORY, f"-DDTYPE={dtype}"] if dtype else SANITIZE
    build([*COMPILE, *flags, f"-I{ROOT / 'tests'}", f"-I{tree}", source, "-o", output])


def link_and_run(objects, program):
    build(["g++", *SANITIZE, *objects, "-o", program])
    # A leak is no business of these tests, and looking for one fails under a debugger.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return run([program], env=environment)


@pytest.fixture(scope="module")
def unchanged_objects(tmp_path_factory):
    """What no mutation touches: the program, and the CPU kernels that it compares with."""
    folder = tmp_path_factory.mktemp("unchanged")
    program, kernels = folder / "main.o", folder / "cpu.o"
    include = [f"-I{ROOT / 'tests'}", f"-I{ROOT / 'csrc'}"]
    build([*COMPILE, *SANITIZE, *include, ROOT / "tests/host_shim_main.cpp", "-o", program])
    build([*COMPILE, "-O1", ROOT / "csrc/cpu/generic.cpp", "-o", kernels])
    return [program, kernels]


def test_launches_equal_the_cpu_kernels(unchanged_objects, tmp_path):
    """All kernels and dtypes, unmutated; if these fail, a failure below means nothing."""
    parts = (*NEURONS, OTHERS)
    objects = [tmp_path / f"{part}.o" for part in parts]
    for part, output in zip(parts, objects, strict=True):
        compile_kernels(ROOT / "csrc", part, output)
    result = link_and_run([*unchanged_objects, *objects], tmp_path / "program")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    count, rest = result.stdout.split(" cases, ")
    assert int(count) > 3000
    assert rest == "0 mismatches, 0 wrong quotients\n"


@pytest.mark.parametrize("neuron, dtype", sorted({m[3:5] for m in MUTATIONS.values()}))
def test_the_small_builds_pass(neuron, dtype, unchanged_objects, tmp_path):
    """Those that mutations are built with, without one."""
    compile_kernels(ROOT / "csrc", neuron, tmp_path / "kernels.o", dtype)
    result = link_and_run([*unchanged_objects, tmp_path / "kernels.o"], tmp_path / "program")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_caught(mutation, unchanged_objects, tmp_path):
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
