"""One wheel for every Python and torch, small, with the CPU kernels; and a source distribution that holds all a build
needs. The wheel is packed from the library that the suite itself runs: only a release compiles it anew (.ci/wheel)."""

import re
import shutil
import sys
import tarfile
import zipfile
import zlib

import pytest
from packaging.utils import parse_wheel_filename
from processes import run
from test_build import ROOT, copy_sources, python

import stdano_kernels

LIBRARY = ROOT / "stdano_kernels/_C.abi3.so"
MOST = 5 * 2**20
pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="the CPU kernels were not built in this tree")


def test_the_library_is_small_and_knows_no_python():
    """It is loaded by torch.ops, and needs neither Python's nor torch's Python library, whose ABIs are not stable."""
    data = LIBRARY.read_bytes()
    assert len(zlib.compress(data, 6)) < MOST
    assert b"libtorch_cpu.so" in data
    assert b"libtorch_python" not in data and b"libpython" not in data


def test_a_release_is_built_with_the_oldest_and_tried_with_both_ends():
    project = (ROOT / "pyproject.toml").read_text()
    release = (ROOT / ".github/workflows/release.yml").read_text()
    torch = re.search(r'dependencies = \["torch>=([\d.]+)"', project)[1]
    python = re.search(r'requires-python = ">=([\d.]+)"', project)[1]
    assert f"TORCH: torch=={torch}.0 " in release and f'torch: ["torch=={torch}.0", "torch"]' in release
    assert f"/opt/python/cp{python.replace('.', '')}-" in release and f'python: ["{python}", ' in release
    for script in re.findall(r"\S*\.ci/\S+", release):
        assert (ROOT / script).exists(), script


def test_a_release_has_one_version_and_date():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    version, date = re.search(r"^## (\S+) \((.*)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M).groups()
    assert 'version = { attr = "stdano_kernels.__version__" }' in project
    assert stdano_kernels.__version__ == version == str(citation["version"])
    assert citation["date-released"] == date
    assert citation["cff-version"] == "1.2.0" and f'license = "{citation["license"]}"' in project
    assert {"message", "title", "authors", "abstract", "references"} <= set(citation)
    assert f"| {version.rpartition('.')[0]}.x |" in (ROOT / "SECURITY.md").read_text()


def test_what_the_hosting_site_reads():
    yaml = pytest.importorskip("yaml")
    folder = ROOT / ".github/ISSUE_TEMPLATE"
    forms = {file.stem: yaml.safe_load(file.read_text()) for file in folder.glob("*.yml")}
    assert set(forms) == {"bug_report", "feature_request", "wrong_result", "config"}
    assert forms.pop("config") == {"blank_issues_enabled": True}
    for name, form in forms.items():
        assert {"name", "description", "labels", "body"} == set(form), name
        for part in form["body"]:
            assert part["type"] in ("textarea", "dropdown") and part["attributes"]["label"], name
        ids = [part["id"] for part in form["body"]]
        assert len(set(ids)) == len(ids), name
    for name in ("bug_report", "wrong_result"):
        (wanted,) = (part for part in forms[name]["body"] if part["id"] == "info")
        assert "`stdano info --json`" in wanted["attributes"]["label"] and wanted["validations"]["required"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel") / "stdano"
    copy_sources(folder)
    (folder / "lib/stdano_kernels").mkdir(parents=True)
    shutil.copy(LIBRARY, folder / "lib/stdano_kernels")
    (folder / "setup.cfg").write_text("[build]\nbuild_lib = lib\n")
    result = python(folder, "setup.py", "-q", "build_py", "bdist_wheel", "--skip-build", STDANO_CUDA="0")
    assert result.returncode == 0, result.stderr
    (file,) = (folder / "dist").glob("*.whl")
    return file


@pytest.mark.slow
def test_one_wheel_for_every_python(wheel):
    name, _, _, tags = parse_wheel_filename(wheel.name)
    assert name == "stdano" and {(tag.interpreter, tag.abi) for tag in tags} == {("cp310", "abi3")}
    assert wheel.stat().st_size <= MOST
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (n for n in names if n.endswith("METADATA"))
        text = archive.read(metadata).decode()
    assert "Requires-Python: >=3.10\n" in text and "Requires-Dist: torch>=2.10\n" in text
    assert [n for n in names if n.endswith(".so")] == ["stdano_kernels/_C.abi3.so"]
    facts = {"stdano/presets/paper.json", "stdano/analysis/published.json"}
    facts |= {f"stdano/report/page.{kind}" for kind in ("html", "css", "js")}
    assert facts | {"stdano/py.typed", "stdano_kernels/py.typed"} <= set(names)
    # What kernels are compiled with at their first use.
    assert {f"stdano_kernels/include/{f.name}" for f in (ROOT / "stdano_kernels/include").iterdir()} <= set(names)
    assert {n.split("/")[0].split("-")[0] for n in names} == {"stdano", "stdano_kernels"}


@pytest.mark.slow
def test_the_wheel_runs_without_a_compiler(wheel, tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel]
    run(command, check=True)
    result = python(site, ROOT / ".ci/try_install.py")
    assert result.stdout.startswith(f"{site}: torch "), result.stderr


@pytest.mark.slow
def test_the_source_distribution_holds_what_a_build_needs(tmp_path):
    folder = tmp_path / "stdano"
    copy_sources(folder)
    (folder / "stdano_kernels/_C.abi3.so").touch()
    result = python(folder, "setup.py", "-q", "sdist")
    assert result.returncode == 0, result.stderr
    (file,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    sources = {str(f.relative_to(ROOT)) for part in ("csrc", "stdano", "stdano_kernels") for f in source_files(part)}
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md", *sources} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


def source_files(part):
    return (f for f in (ROOT / part).rglob("*") if f.is_file() and f.suffix not in (".so", ".pyc"))
