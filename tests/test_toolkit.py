"""Whether the CUDA kernels are built: what the user says, a GPU, a CUDA toolkit; and saying why they are not."""

import importlib

import pytest
import torch

from stdano_kernels import toolkit

backends = importlib.import_module("stdano_kernels.backends")  # the package has a function of this name

NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release {}, V{}.88'\n"


@pytest.fixture
def make_toolkit(tmp_path, monkeypatch):
    """Folders that look like toolkits, and nothing else to be found: no driver, no wish."""
    for name in ("CUDA_HOME", "CUDA_PATH", "STDANO_CUDA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolkit.shutil, "which", lambda name: None)
    monkeypatch.setattr(toolkit, "DEFAULT", tmp_path / "none")
    monkeypatch.setattr(toolkit, "DRIVER_DEVICES", tmp_path / "gpus")

    def make(name, version="13.0", header=True):
        folder = tmp_path / name
        (folder / "bin").mkdir(parents=True)
        nvcc = folder / "bin" / "nvcc"
        nvcc.write_text(NVCC.format(version, version))
        nvcc.chmod(0o755)
        if header:
            (folder / "include").mkdir()
            (folder / "include" / "cuda_runtime.h").touch()
        return folder

    return make


def test_the_named_toolkit_comes_first(make_toolkit, monkeypatch):
    named, other = make_toolkit("named", "13.1"), make_toolkit("other")
    monkeypatch.setattr(toolkit, "DEFAULT", other)
    assert toolkit.find_toolkit("13.0") == (other, "13.0")
    monkeypatch.setenv("CUDA_HOME", str(named))
    assert toolkit.find_toolkit("13.0") == (named, "13.1"), "minor versions may differ"


def test_an_nvcc_without_headers_is_passed_over(make_toolkit, monkeypatch):
    bare, whole = make_toolkit("bare", header=False), make_toolkit("whole")
    monkeypatch.setattr(toolkit.shutil, "which", lambda name: str(bare / "bin" / "nvcc"))
    monkeypatch.setattr(toolkit, "DEFAULT", whole)
    assert toolkit.find_toolkit("13.0") == (whole, "13.0")


@pytest.mark.parametrize(
    "torch_cuda, words",
    ((None, "built without CUDA"), ("12.8", "13.0, but torch was built with CUDA 12.8: the major versions must agree")),
)
def test_reasons(make_toolkit, monkeypatch, torch_cuda, words):
    monkeypatch.setattr(toolkit, "DEFAULT", make_toolkit("usual"))
    folder, reason = toolkit.find_toolkit(torch_cuda)
    assert folder is None and words in reason


def test_nothing_found_names_where_it_looked(make_toolkit, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "typo"))
    folder, reason = toolkit.find_toolkit("13.0")
    assert folder is None and str(tmp_path / "typo") in reason and "cuda_runtime.h" in reason


@pytest.mark.parametrize(
    "asked, torch_sees_gpu, driver, built",
    (
        (None, False, False, "no GPU was found; STDANO_CUDA=1"),
        ("", False, False, "no GPU was found"),
        (None, True, False, True),
        (None, False, True, True),
        ("1", False, False, True),
        ("0", True, True, "STDANO_CUDA=0"),
    ),
)
def test_cuda_is_built_where_a_gpu_is_or_the_user_says_so(
    make_toolkit, monkeypatch, tmp_path, asked, torch_sees_gpu, driver, built
):
    usual = make_toolkit("usual")
    monkeypatch.setattr(toolkit, "DEFAULT", usual)
    if asked is not None:
        monkeypatch.setenv("STDANO_CUDA", asked)
    if driver:
        (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    folder, found = toolkit.plan("13.0", torch_sees_gpu)
    if built is True:
        assert (folder, found) == (usual, "13.0")
    else:
        assert folder is None and built in found


def test_a_wish_without_a_toolkit_keeps_the_reason(make_toolkit, monkeypatch):
    monkeypatch.setenv("STDANO_CUDA", "1")
    folder, reason = toolkit.plan("13.0", False)
    assert folder is None and "no CUDA toolkit" in reason


@pytest.mark.parametrize("value", ("yes", "2", "true", " 1"))
def test_an_unknown_wish_is_refused(make_toolkit, monkeypatch, value):
    monkeypatch.setenv("STDANO_CUDA", value)
    with pytest.raises(ValueError, match=f"STDANO_CUDA must be 0 or 1 .*got '{value}'"):
        toolkit.plan("13.0", True)


@pytest.mark.parametrize(
    "version, architectures, flags",
    (
        ("12.6", "7.5;8.0;8.6;9.0+PTX", []),
        ("12.8", "7.5;8.0;8.6;9.0+PTX;12.0", ["--compress-mode=size"]),
        ("13.0", "7.5;8.0;8.6;9.0+PTX;12.0", ["--compress-mode=size"]),
        ("12.10", "7.5;8.0;8.6;9.0+PTX;12.0", ["--compress-mode=size"]),
    ),
)
def test_what_nvcc_is_asked_for(version, architectures, flags):
    """sm_120 and smaller files where the toolkit knows them, which is from 12.8 on."""
    assert toolkit.architectures(version) == architectures
    assert toolkit.nvcc_flags(version) == flags


def test_the_missing_backend_says_how_to_get_it(make_toolkit, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    reason = backends._why_no_cuda_kernels()
    assert "no CUDA toolkit" in reason and "STDANO_CUDA=1" in reason
    monkeypatch.setattr(toolkit, "DEFAULT", make_toolkit("usual"))
    reason = backends._why_no_cuda_kernels()
    assert "no GPU was found" in reason and "STDANO_CUDA was 0" in reason and "set STDANO_CUDA=1 and install" in reason
