"""The CUDA kernels without a GPU: whole launches on the host, under sanitizers, against the CPU kernels in all bits.

csrc/cuda/neuron.h, launch.h and channels.h are plain C++ but for a few words, which host_shim.h defines; a launch is a
loop over grid and block. What a GPU does in parallel, and what nvcc makes of the code, is for tests/gpu.
"""

import os
import shutil
import subprocess
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest
from processes import run
from selection import sample

from stdano_kernels.define.cpp import namespace_source
from stdano_kernels.define.cuda import DeviceSource, sizes, super_neuron_kernels
from stdano_kernels.define.plan import plan
from stdano_kernels.define.surrogates import SHAPES
from stdano_kernels.define.trace import Variant, trace
from stdano_kernels.neurons import NEURONS

ROOT = Path(__file__).parent.parent


def has_sanitizers():
    """A compiler names the library's path, or returns the bare name where there is none."""
    if shutil.which("g++") is None:
        return False
    command = ["g++", "-print-file-name=libasan.so"]
    return "/" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


pytestmark = pytest.mark.skipif(not has_sanitizers(), reason="needs g++ and its sanitizers")

# The flags that results depend on, as in setup.py.
COMPILE = ["g++", "-w", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-c"]
SANITIZE = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SANITIZE_MEMORY = ["-O0", "-fsanitize=address,alignment,null", "-fno-sanitize-recover=all"]  # compiles faster
AHEAD, BACK, NEURON, LAYOUT, LAUNCH, CHANNELS, FLOAT_SUMS, DEVICE_MATH = (
    f"csrc/cuda/{name}.h"
    for name in ("forward", "backward", "neuron", "layout", "launch", "channels", "float_sums", "device_math")
)
OUTSIDE, ALIGNMENT, BITS = "AddressSanitizer", "misaligned address", "MISMATCH"
KERNELS, AROUND = "kernels", "channels"
# A mutation is compiled with what notices it alone: with every check that takes three times as long.
NOTICED_BY = {OUTSIDE: ["-fsanitize=address"], ALIGNMENT: ["-fsanitize=alignment"]}
ANYTHING = ""  # one of several mistakes, by whatever memory holds

TOGETHER = ("lif", "llif", "slif")

# name: (file, text, replacement, what notices); each text stands in its file exactly once.
MUTATIONS = {
    "firing > instead of >=": (DEVICE_MATH, "return u >= 0;", "return u > 0;", BITS),
    "forward: no mask": (AHEAD, "if (m >= static_cast<Index>(a.g.N)) return;", ";", OUTSIDE),
    "forward: mask one neuron late": (AHEAD, "if (m >= static_cast", "if (m > static_cast", OUTSIDE),
    "forward: stride in time": (AHEAD, "++t, at += static_cast<Index>(a.g.inner)", "++t, at += a.g.N", OUTSIDE),
    "forward: one element in time": (AHEAD, "++t, at += static_cast<Index>(a.g.inner)", "++t, ++at", BITS),
    "forward: loads beyond the last step": (AHEAD, "if (t < last_read) next", "if (t <= last_read) next", OUTSIDE),
    "forward: a checkpoint too far": (AHEAD, "(a, t / K - 1, j, m)", "(a, t / K, j, m)", OUTSIDE),
    "forward: a checkpoint one step late": (AHEAD, "t > 0 && t % K == 0", "t > 1 && (t - 1) % K == 0", BITS),
    "forward: a sequence of another state": (AHEAD, "== j ? state[0][j]", "!= j ? state[0][j]", BITS),
    "forward: at rest whatever is given": (AHEAD, "a.has_state0 ? from.items[i] : c.rest[j]", "c.rest[j]", BITS),
    "checkpoint: states in one place": (AHEAD, "number * states + j)", "number * states)", BITS),
    "codes: those of others are lost": (AHEAD, "if (bit > 0) codes", "if (false) codes", BITS),
    "codes: the first bit": (AHEAD, "code_of(spikes[i]) << bit)", "code_of(spikes[i]))", BITS),
    "slices: no mask": (LAYOUT, "if (thread >= threads) return;", ";", OUTSIDE),
    "slices: every second row": (LAYOUT, "m += static_cast<Index>(s.jump);", "m += 2 * s.jump;", BITS),
    "slices: of the next channel": (
        LAYOUT,
        "begin < stride ? number * stride + begin : N",
        "number * stride + begin",
        BITS,
    ),
    "slices: one neuron of a channel": (LAYOUT, "place + width < stride ?", "false ?", BITS),
    "slices: of the next row's channel": (LAYOUT, "m - place + remainder(place, s.by_width)", "m", BITS),
    "slices: warps of two channels": (LAYOUT, "width % kWarp == 0 ||", "true ||", BITS),
    "slices: a warp's first thread alone": (LAYOUT, "if (!first) *to += value;", ";", "sum of a constant"),
    "slices: one sum as those of channels": (
        LAUNCH,
        "a.slices.by_warp || (of_constant",
        "false && (of_constant",
        OUTSIDE,
    ),
    "backward: the first neuron's alpha for all": (LAUNCH, "back && member.alpha != all.alpha", "false", BITS),
    "backward: stride in time": (BACK, "static_cast<Index>(k) * static_cast<Index>(a.g.inner)", "k * a.g.N", OUTSIDE),
    "backward: first step of a chunk": (BACK, "static_cast<Index>(first) *", "static_cast<Index>(first / 2) *", BITS),
    "backward: first chunk": (BACK, "(a.steps - 1) / K * K;", "a.steps / K * K;", ANYTHING),
    "backward: a checkpoint too far": (BACK, "first / K - 1, state", "first / K, state", OUTSIDE),
    "backward: a checkpoint too early": (BACK, "first / K - 1, state", "0, state", BITS),
    "backward: nothing behind the last step": (BACK, "a.closes && first", "first", BITS),
    "backward: the gradient of another state": (BACK, "? a.grad_state[j][m]", "? a.grad_state[states - 1][m]", BITS),
    "backward: sequences are left out": (BACK, "gradient[j] + more :", "gradient[j] :", BITS),
    "backward: a sequence of another state": (BACK, "== j ? gradient[j]", "!= j ? gradient[j]", BITS),
    "backward: what a state rests at": (BACK, "if (!a.has_state0) C::add_rest", "if (false) C::add_rest", BITS),
    "constants: of the neuron's channel": (AHEAD, "c.per_neuron ? m : channel", "channel", BITS),
    "constants: of the channel's neuron": (AHEAD, "c.per_neuron ? m : channel", "m", OUTSIDE),
    "constants: the last neuron alone": (BACK, "[2 + j][own] +=", "[2 + j][own] =", "sum of a constant"),
    "constants: the gradient of another": (BACK, "[m] = gradients[j];", "[m] = gradients[0];", BITS),
    "affine: without shift": (LAYOUT, "return fma_(scale, x - centre, shift)", "return scale * (x - centre)", BITS),
    "affine: without centre": (LAYOUT, "return fma_(scale, x - centre, shift)", "return fma_(scale, x, shift)", BITS),
    "affine: gradient not scaled": (BACK, "g[k] = map.scale * g[k];", ";", BITS),
    "affine: sum for scale without x": (
        BACK,
        "fma_(g[k], x - map.centre, of_scale)",
        "of_scale + g[k]",
        "sum_scale",
    ),
    "affine: sum for shift, scaled": (BACK, "of_shift += g[k]", "of_shift += map.scale * g[k]", "sum_shift"),
    "super neuron: fired for silent": (BACK, "v.fired[k] ? fired : silent", "v.fired[k] ? silent : fired", BITS),
    "super neuron: the last neuron alone": (BACK, "total[k] = sum[at] + total[k];", ";", BITS),
    "together: the first bit": (NEURON, "<< bit++, before", ", before", BITS),
    "together: states in one place": (NEURON, "before += Parts::S::states", "before += 0", BITS),
    "together: constants of the first": (NEURON, "constants += Parts::C::constants", "constants += 0", BITS),
    "together: spikes of the first": (BACK, "codes[k] >> number & 1", "codes[k] & 1", BITS),
    "together: a spike of another step": (BACK, "v.slopes[k], v.fired[k]);", "v.slopes[k], v.fired[0]);", BITS),
    "together: table of the first": (BACK, " + 3 * number * a.g.channels", "", BITS),
    "together: gradients in one place": (BACK, "gradient + state;", "gradient;", BITS),
    "together: the last neuron alone": (BACK, "number > 0 ? total[k] + v.g[k] : v.g[k]", "v.g[k]", BITS),
    "super neuron: table of the first": (LAUNCH, "+ 3 * i * call.g.channels * size", "", BITS),
    "super neuron: no checkpoints": (LAUNCH, "if (scratch_size(call) > sums)", "if (false)", BITS),
    "super neuron: sums in the way": (LAUNCH, "static_cast<char*>(scratch) + sums;", "scratch;", BITS),
    "offset: T instead of T - 1": (LAYOUT, "static_cast<Index>(a.g.T - 1)", "static_cast<Index>(a.g.T)", OUTSIDE),
    "offset: without inner": (LAYOUT, "static_cast<Index>(a.g.T - 1) *", "a.g.T - 1; (void)", ANYTHING),
    "offset: one sequence": (LAYOUT, "if (a.g.inner == a.g.N) return m;", "return m;", BITS),
    "channel: without its stride": (LAYOUT, "remainder(divide(m, a.channel_stride), ", "remainder(m, ", BITS),
    "channel: beyond the last": (LAYOUT, "a.channel_stride), a.channels)", "a.channel_stride), a.inner)", ANYTHING),
    "division: multiplier rounded down": (LAYOUT, "(power + out.value - 1)", "power", "divided by"),
    "division: shift too small": (LAYOUT, "uint64_t(1) << out.shift) <", "uint64_t(2) << out.shift) <", "divided by"),
    "division: 30 bits": (LAYOUT, "multiplier(31)", "multiplier(30)", "divided by"),
    "launch: pointers are not checked": (LAYOUT, "% bytes == 0) && ...);", "% bytes == 0) || ... || true);", ALIGNMENT),
    "launch: a block too few": (LAYOUT, "((threads + block - 1) / block)", "(threads / block)", BITS),
    "launch: pointers checked to 4 bytes": (LAUNCH, "is_aligned(16, a.x", "is_aligned(4, a.x", ALIGNMENT),
    "launch: checkpoints are not checked": (LAUNCH, "a.coded.codes, a.checkpoints)", "a.coded.codes)", ALIGNMENT),
    "launch: states are not checked": (LAUNCH, "&& is_aligned(16, a.state0[j], a.state[j])", "", ALIGNMENT),
    "launch: inner is not checked": (LAUNCH, "a.g.inner % width == 0 &&", "true &&", ANYTHING),
    "launch: sequences are not checked": (LAUNCH, " && call.which.empty();", ";", BITS),
    "launch: tables are not checked": (LAUNCH, "&& !has_tables(call.neuron) ", "", BITS),
    "launch: nine steps are eight": (LAUNCH, "T > 0 && T % 8 == 0", "T > 8", ANYTHING),
    "launch: sums in one place": (LAUNCH, "partial += a.slices.partials();", ";", BITS),
    "launch: the signs of zeros": (LAUNCH, "(k.is_long || call.g.T % kUnit == 0)", "false", BITS),
    "sums: squares in float": (FLOAT_SUMS, " + fma_(x, x, -square);", ";", "squares"),
    "sums: what rounding takes": (FLOAT_SUMS, "sum.low += sum.add(x);", "sum.add(x);", "sum"),
    "counts: 256 at once": (CHANNELS, "++counted == 255", "++counted == 256", "count"),
    "counts: of the lower half": (CHANNELS, "(k < 4 ? low : high)", "low", "count"),
    "table: neighbours share a channel": (CHANNELS, "channel_of(a, m + i)", "channel_of(a, m)", BITS),
    "table: pointers are not checked": (
        CHANNELS,
        "may_be_wide && is_aligned(dtype == Dtype::float32 ? 16 : 8, pointers...);",
        "may_be_wide;",
        ALIGNMENT,
    ),
    "decode: a row too early": (CHANNELS, "table[1 + k][i] : real(0)", "table[k][i] : real(0)", BITS),
    "super sums: of one neuron": (CHANNELS, "+= (code >> k & 1)", "+= (code & 1)", BITS),
    "affine map: of the neighbours' channel": (CHANNELS, "(a.table), m + i)", "(a.table), m)", BITS),
}


build = partial(run, check=True)


def settings(size):
    """The variants of each neuron. "all": each reset, with each surrogate somewhere; "few": both, but of all neurons
    together; "small": one variant."""
    if size == "small":
        return {"llif": [Variant()]}
    surrogate, reset = cycle(SHAPES), cycle(("soft", "hard", "zero"))
    resets = dict.fromkeys(NEURONS, ("zero", "soft")) | {"llif": ("zero", "soft", "hard")}
    if size == "few":
        resets |= {name: (next(reset),) for name in NEURONS if name not in TOGETHER}
    return {name: [Variant(reset=r, surrogate=next(surrogate)) for r in of] for name, of in resets.items()}


def ranges(step):
    """From what a neuron's constants are taken, as C++."""
    out = []
    for name in step.constants:
        default = step.neuron.constants[name].default or 0.0
        low, high = (0.6, 4.0) if name in step.times else (default * 0.7, default * (1.3 if default > 0.5 else 4.0))
        out.append(f"{{{low}, {high or 0.25}}}")
    return f"{{{', '.join(out)}}},"


def print_neurons(folder, size):
    """What the kernels of both sides are compiled with."""
    small = size == "small"
    plans = {name: [plan(trace(NEURONS[name], v)) for v in of] for name, of in settings(size).items()}
    every = [p for of_neuron in plans.values() for p in of_neuron]
    printed = [namespace_source(p, k, floats=True, doubles=True) for k, p in enumerate(every)]
    table = ",\n".join(entry for _, entry in printed)
    sources = [DeviceSource(of_neuron) for of_neuron in plans.values()]
    device = "".join(source.structs() + source.kernels(doubles=not small) for source in sources)
    # The first setting of each of these has kernels with the others'; small: of one with itself.
    together = [plans["llif" if small else name][0] for name in TOGETHER[: 2 if small else None]]
    parts = [DeviceSource([p]) for p in together]
    structs = "".join(text for text in dict.fromkeys(p.structs() for p in parts) if text not in device)
    device += f"namespace together {{\n{structs}{super_neuron_kernels(parts)}}}\n"
    texts = {
        "device_sizes.h": sizes(every, together),
        "neurons.inc": device,
        "printed.h": "".join(text for text, _ in printed) + f"const NeuronKernels printed[] = {{{table}}};\n",
        "ranges.inc": "\n".join(ranges(p.step) for p in every),
        "together.inc": ", ".join(str(every.index(p)) for p in together),
    }
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)


def compile_part(tree, part, output, *flags):
    """A file of this folder with what `tree` has."""
    include = [f"-I{ROOT / 'tests'}", *[f"-I{tree / f}" for f in ("printed", "csrc", "csrc/cuda")]]
    build([*COMPILE, *flags, *include, f"-I{ROOT / 'stdano_kernels' / 'include'}", part, "-o", output])


def link_and_run(objects, program, *arguments):
    build(["g++", *SANITIZE, *objects, "-o", program])
    # A leak is no business of these tests, and looking for one fails under a debugger.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return run([program, *arguments], env=environment)


def make_tree(folder, size):
    """Sources, and objects of what no mutation touches: the program, and the CPU kernels that it compares with."""
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    print_neurons(folder / "printed", size)
    compile_part(folder, ROOT / "tests/host_shim_main.cpp", folder / "main.o", *SANITIZE)
    compile_part(folder, ROOT / "csrc/cpu/generic.cpp", folder / "cpu.o", "-O1")
    return folder


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("small"), "small")


def compile_device(tree, part, output, flags=SANITIZE_MEMORY):
    compile_part(tree, ROOT / f"tests/host_shim_{part}.cpp", output, *flags)


@pytest.mark.parametrize(
    ("size", "least"),
    [pytest.param("few", 4000, marks=pytest.mark.slow), pytest.param("all", 6000, marks=pytest.mark.exhaustive)],
)
def test_launches_equal_the_cpu_kernels(size, least, tmp_path):
    """All neurons, kernels and dtypes, unmutated; if these fail, a failure below means nothing."""
    tree = make_tree(tmp_path / "tree", size)
    objects = [tree / f"{part}.o" for part in ("main", "cpu", KERNELS, AROUND)]
    for part in (KERNELS, AROUND):
        compile_device(tree, part, tree / f"{part}.o")
    result = link_and_run(objects, tmp_path / "program")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    cases, rest = result.stdout.split(" cases, ")
    assert int(cases) > least
    assert rest == "0 mismatches, 0 wrong quotients\n"


@pytest.mark.slow
@pytest.mark.parametrize("part", (KERNELS, AROUND))
def test_the_small_builds_pass(part, small_tree, tmp_path):
    """Those that mutations are built with, without one."""
    compile_device(small_tree, part, tmp_path / "part.o")
    result = link_and_run([small_tree / "main.o", small_tree / "cpu.o", tmp_path / "part.o"], tmp_path / "program")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.parametrize("mutation", sample(MUTATIONS))
def test_a_mutation_is_caught(mutation, small_tree, tmp_path):
    file, text, replacement, notice = MUTATIONS[mutation]
    for name in ("csrc", "printed"):
        shutil.copytree(small_tree / name, tmp_path / name)
    source = (tmp_path / file).read_text()
    assert source.count(text) == 1, "the mutation must apply exactly once"
    (tmp_path / file).write_text(source.replace(text, replacement))
    flags = SANITIZE_MEMORY if notice == ANYTHING else ["-O0", "-fno-sanitize-recover=all", *NOTICED_BY.get(notice, [])]
    compile_device(tmp_path, AROUND if file in (CHANNELS, FLOAT_SUMS) else KERNELS, tmp_path / "part.o", flags)
    objects = [small_tree / "main.o", small_tree / "cpu.o", tmp_path / "part.o"]
    result = link_and_run(objects, tmp_path / "program", "first")
    output = result.stdout + result.stderr
    assert result.returncode != 0, "nothing noticed: " + output[-3000:]
    assert notice in output, output[-3000:]
