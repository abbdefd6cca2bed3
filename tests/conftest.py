"""Fixtures shared by all tests, and which tests a run holds (selection.py); helpers that are plain functions stand in
kernels_common.py."""

import os

import pytest
import selection
import torch
from hypothesis import settings

import stdano_kernels
from stdano_kernels import compiler

settings.register_profile("stdano", derandomize=True, deadline=None, max_examples=100, print_blob=True)
settings.load_profile("stdano")


# Several processes side by side (pytest -n): threads that wait for each other's core cost more than they gain.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long; left out by default, run with -m slow")
    config.addinivalue_line(
        "markers", "exhaustive: takes longest, or one more case of crossed parameters; run with -m exhaustive"
    )
    config.addinivalue_line("markers", "gpu: needs a CUDA device, real or simulated; alone with -m gpu")
    # A test that falls back to the reference has not tested what it says.
    config.addinivalue_line("filterwarnings", "error:stdano runs the reference backend:RuntimeWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    selection.mark_cases(items)


def pytest_deselected(items):
    selection.note_left_out(items[0].config, items)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # of pytest-xdist's workers, which alone collect
        session.config.workeroutput["left_out"] = session.config.stash.get(selection.LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.stash[selection.LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter, config):
    selection.report_left_out(config, terminalreporter.write_line)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def cpu_capability():
    """Switches the CPU kernels to an instruction set, skips where this processor lacks it, restores at the end."""
    assert stdano_kernels.backends()["cpu"].available
    before = torch.ops.stdano.cpu_capability()

    def switch(level):
        try:
            compiler.use_level(level)
        except RuntimeError as error:
            pytest.skip(f"this processor lacks {level}: {str(error).splitlines()[0]}")

    yield switch
    compiler.use_level(before)


@pytest.fixture
def set_threads():
    """torch.set_num_threads, restored at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
