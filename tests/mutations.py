"""Broken sources and the tests that must notice: helpers of test_mutation.py and test_channel_mutation.py.

A mutation of the declarations, the graph, the adjoint or the printer is a changed copy of the package, which compiles
what it prints when a test asks for it. A mutation of the C++ around that is a library of its own, of one instruction
set (the others' names are there, and give the same), without optimisation and without any neuron: neurons take longest,
and come from disk, where earlier tests have left them.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from kernels_common import LEVELS
from processes import run
from torch.utils.cpp_extension import include_paths, library_paths

ROOT = Path(__file__).parent.parent
LIBRARY = "stdano_kernels/_C.abi3.so"
marks = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif("x86-64-v3" not in LEVELS, reason="builds the kernels for AVX2"),
]

# Calls tests of a tree in children, which find torch and pytest loaded: that takes longer than most of the tests.
SERVER = """
import importlib, json, os, re, signal, sys, traceback, warnings
import hypothesis, numpy, pytest, torch, torch._dynamo

def call(tree, log, environment, tests):
    signal.alarm(600)
    os.chdir(tree)
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1), os.dup2(file, 2)
    sys.path[:0] = [tree, tree + "/tests"]
    warnings.filterwarnings("error", "stdano runs the reference backend")
    import stdano_kernels
    assert stdano_kernels.__file__.startswith(tree) and stdano_kernels.backends()["cpu"].available
    modules = {name: importlib.import_module(name) for name in re.findall(r"test_\\w+(?=\\.)", tests)}
    torch.manual_seed(0)
    try:
        exec(tests, modules)
    except AssertionError:
        traceback.print_exc()
        return "failed"
    return "passed"

for line in sys.stdin:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "an error"
        try:
            said = call(*json.loads(line))
        finally:
            os.write(writer, said.encode())
            traceback.print_exc()
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    print(os.read(reader, 100).decode() or "a crash", flush=True)
    os.close(reader)
"""

COMPILE = [
    *("g++", "-O0", "-mavx2", "-mfma", "-w", "-fPIC", "-std=c++20", "-ffp-contract=off", "-fno-math-errno"),
    *("-DTORCH_TARGET_VERSION=0x020a000000000000", "-DPy_LIMITED_API=0x030A0000"),
]
KERNELS = """
#define STDANO_ISA generic
#include "cpu/passes.h"
namespace stdano {
namespace x86_64_v3 { extern const CpuKernels kernels = generic::kernels; }
namespace x86_64_v4 { extern const CpuKernels kernels = generic::kernels; }
}
"""


def compiler(source, output, include):
    folders = [include / "csrc", include / "stdano_kernels/include", include, *include_paths()]
    folders.append(sysconfig.get_paths()["include"])
    run([*COMPILE, *(f"-I{f}" for f in folders), "-c", source, "-o", output], check=True)


class Trees:
    """Copies of the package, and the process that runs their tests."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def copy(self, mutation=None):
        self.count += 1
        tree = self.folder / f"tree{self.count}"
        ignore = shutil.ignore_patterns("*.so", "__pycache__", "gpu*", "cuda", "triton")
        for name in ("csrc", "stdano_kernels", "tests"):
            shutil.copytree(ROOT / name, tree / name, ignore=ignore)
        if mutation is not None:
            file, text, replacement = mutation
            source = (tree / file).read_text()
            assert source.count(text) == 1, f"the mutation must apply exactly once, not {source.count(text)} times"
            (tree / file).write_text(source.replace(text, replacement))
        return tree

    def with_library(self, mutation=None):
        """A copy with a library compiled from its sources."""
        tree = self.copy(mutation)
        objects = self.folder / "objects"
        if not objects.exists():  # what no mutation touches
            objects.mkdir()
            for name, source in (("schemas", "ops"), ("ops", "cpu/ops"), ("bits", "cpu/bits")):
                compiler(ROOT / f"csrc/{source}.cpp", objects / f"{name}.o", ROOT)
        (tree / "printed.h").write_text("const NeuronKernels printed[] = {{}};")
        (tree / "kernels.cpp").write_text(KERNELS)
        compiler(tree / "kernels.cpp", tree / "kernels.o", tree)
        torch_libraries = [f"-L{folder}" for folder in library_paths()] + ["-lc10", "-ltorch_cpu", "-ltorch"]
        parts = [tree / "kernels.o", *objects.iterdir(), *torch_libraries]
        run(["g++", "-shared", *parts, "-o", tree / LIBRARY], check=True)
        return tree

    def as_installed(self, mutation=None):
        """A copy with the library that is installed."""
        tree = self.copy(mutation)
        (tree / LIBRARY).symlink_to(ROOT / LIBRARY)
        return tree

    def result(self, tree, tests, **environment):
        """Whether calls of tests passed or failed, and what they printed."""
        log = tree / "log"
        print(json.dumps([str(tree), str(log), environment, tests]), file=self.process.stdin, flush=True)
        result = self.process.stdout.readline().strip()
        return result, log.read_text()[-3000:]

    def assert_passes(self, tree, tests, **environment):
        """Without a mutation; otherwise a failure below would mean nothing."""
        result, output = self.result(tree, tests, **environment)
        assert result == "passed", f"{tests}: {result}: {output}"

    def assert_caught(self, tree, tests, **environment):
        result, output = self.result(tree, tests, **environment)
        assert result == "failed", f"no test noticed: {tests}: {result}: {output}"
        shutil.rmtree(tree)

    def close(self):
        self.process.communicate()


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    trees = Trees(tmp_path_factory.mktemp("trees"))
    yield trees
    trees.close()


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where what mutations print is compiled to, apart from what the package itself prints; one for all processes."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    return {"STDANO_CACHE": str(folder / "mutations")}
