"""Installing without a compiler: a warning instead of kernels, and never a package that does not import; but an error
where CUDA kernels were asked for."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from processes import run

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def copy_sources(to):
    """What a source distribution holds: no build folder, no compiled files."""
    to.mkdir()
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to)
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("csrc", "stdano_kernels", "stdano"):
        shutil.copytree(ROOT / name, to / name, ignore=ignore)


def python(folder, *arguments, **environment):
    """Runs Python in a folder whose packages come first, with no compiler to be found."""
    (folder / "no programs").mkdir(exist_ok=True)
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("CC", "CXX", "STDANO_CUDA")},
        "PATH": str(folder / "no programs"),
        "PYTHONPATH": str(folder),
        **environment,
    }
    return run([sys.executable, *arguments], cwd=folder, env=environment)


@pytest.fixture(scope="module", params=("no compiler", "CXX names nothing"))
def built_without_compiler(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree") / "stdano"
    copy_sources(folder)
    missing = {"CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"} if "CXX" in request.param else {}
    result = python(folder, "setup.py", "-q", "build_ext", "--inplace", **missing)
    return folder, result


def test_the_build_says_so_and_succeeds(built_without_compiler):
    folder, result = built_without_compiler
    assert result.returncode == 0, result.stderr
    assert "the CPU kernels were not built" in result.stderr
    assert not list((folder / "stdano_kernels").glob("*.so"))


USE = """
import warnings
import torch
import stdano_kernels
assert stdano_kernels.__file__.startswith({folder!r}), stdano_kernels.__file__
status = stdano_kernels.backends()["cpu"]
assert not status.available
assert "compiler" in status.reason and "g++" in status.reason, status.reason
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for neuron in (stdano_kernels.lif, stdano_kernels.llif, stdano_kernels.slif):
        assert neuron(torch.ones(3, 2)).sum() > 0
(warning,) = seen
assert "reference backend" in str(warning.message) and status.reason in str(warning.message)
try:
    stdano_kernels.lif(torch.ones(3, 2), backend="cpu")
except RuntimeError as error:
    assert 'backend="cpu" is not available here' in str(error) and status.reason in str(error)
else:
    raise AssertionError("an explicit backend fell back")
print("fine")
"""


def test_without_kernels_the_reference_serves_with_one_warning(built_without_compiler):
    folder, _ = built_without_compiler
    result = python(folder, "-c", USE.format(folder=str(folder)))
    assert result.stdout == "fine\n", result.stderr


@pytest.mark.parametrize("toolkit", (False, True), ids=("no toolkit", "no compiler"))
def test_cuda_kernels_that_were_asked_for_fail_the_build(toolkit, tmp_path):
    """Whatever is missing; what is there is found under the names of the machine, of which the copy has others."""
    folder = tmp_path / "stdano"
    copy_sources(folder)
    module = folder / "stdano_kernels" / "toolkit.py"
    module.write_text(module.read_text().replace("/usr/local/cuda", str(tmp_path / "cuda")))
    if toolkit:
        if torch.version.cuda is None:
            pytest.skip("this torch was built without CUDA")
        (tmp_path / "cuda/bin").mkdir(parents=True)
        (tmp_path / "cuda/include").mkdir()
        (tmp_path / "cuda/include/cuda_runtime.h").touch()
        nvcc = tmp_path / "cuda/bin/nvcc"
        nvcc.write_text(f"#!/bin/sh\necho 'release {torch.version.cuda}, V0'\n")
        nvcc.chmod(0o755)
    nowhere = str(tmp_path / "nowhere")
    result = python(
        folder, "setup.py", "-q", "build_ext", "--inplace", STDANO_CUDA="1", CUDA_HOME=nowhere, CUDA_PATH=nowhere
    )
    assert result.returncode != 0
    assert "error: STDANO_CUDA=1, but the CUDA kernels cannot be built: " in result.stderr
    assert ("no CUDA toolkit" in result.stderr) is not (toolkit and torch.version.cuda is not None)


def test_a_library_of_older_sources_does_not_stay(tmp_path):
    """Its operators would be loaded beside the new ones, with schemas that may have changed."""
    folder = tmp_path / "stdano"
    copy_sources(folder)
    for name in ("_C.abi3.so", "_C_cuda.abi3.so"):
        (folder / "stdano_kernels" / name).touch()
    result = python(folder, "setup.py", "-q", "build_ext", "--inplace", STDANO_CUDA="0")
    assert result.returncode == 0, result.stderr
    assert "no CUDA kernels: STDANO_CUDA=0" in result.stderr and "removes _C_cuda.abi3.so" in result.stderr
    assert not list((folder / "stdano_kernels").glob("*.so"))


# Everything in [project.optional-dependencies]; a finder that refuses them stands for not having installed them.
WITHOUT_EXTRAS = """
import sys
EXTRAS = {"lightning_fabric", "lightning", "tyro", "rich", "matplotlib", "torchvision", "sklearn",
          "tonic", "spikingjelly", "pytest", "hypothesis"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r} (left out by the test)", name=name)
sys.meta_path.insert(0, Refuse())
import PACKAGE
print("fine")
"""


@pytest.mark.parametrize("package", ("stdano_kernels", "stdano"))
def test_imports_without_the_extras(package):
    result = run([sys.executable, "-c", WITHOUT_EXTRAS.replace("PACKAGE", package)], cwd=ROOT)
    assert result.stdout == "fine\n", result.stderr


def test_what_is_compiled_for_an_instruction_set_has_no_standard_containers():
    """Their destructors must be inlined, which gcc 13 and newer refuse from functions for another instruction set."""
    folder = ROOT / "csrc" / "cpu"
    files = {"passes.h"}
    while (
        more := {
            name
            for file in files
            for name in re.findall(r'#include "([\w.]+)"', (folder / file).read_text())
            if (folder / name).is_file() and name != "kernels.h"
        }
        - files
    ):
        files |= more
    assert {"walk.h", "scan.h", "blocks.h", "super_neuron.h"} <= files
    for file in files:
        assert not re.search(r"std::(vector|string|map|array|unique_ptr|function)\b", (folder / file).read_text()), file
