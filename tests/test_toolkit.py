"""Finding the CUDA toolkit, and saying why there is none."""

import pytest

from stdano_kernels import toolkit

NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release {}, V{}.88'\n"


@pytest.fixture
def make_toolkit(tmp_path, monkeypatch):
    """Folders that look like toolkits, and nothing else to be found."""
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setattr(toolkit.shutil, "which", lambda name: None)
    monkeypatch.setattr(toolkit, "DEFAULT", tmp_path / "none")

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
