"""Installing without a compiler: a warning instead of kernels, and never a package that does not import."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from processes import run

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def copy_sources(to):
    """What a source distribution holds: no build folder, no compiled files."""
    to.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to)
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("csrc", "stdano_kernels", "stdano"):
        shutil.copytree(ROOT / name, to / name, ignore=ignore)


def python(folder, *arguments, **environment):
    """Runs Python in a folder whose packages come first, with no compiler to be found."""
    (folder / "no programs").mkdir(exist_ok=True)
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("CC", "CXX")},
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
