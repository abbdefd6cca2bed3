"""The benchmark of the search: it runs, and what it compares are the same steps. Its times are nobody's promise."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("rich", reason="needs the extra [app]")

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import search_step
from _search import LAYOUTS, WAYS, SearchCase
from tolerances import TOLERANCES

CASE = SearchCase("vgg-small", 0.1, 3, 3, 8)


@pytest.mark.parametrize("order", [1, 2])
def test_all_ways_make_the_same_step(order):
    losses = [
        torch.stack(search_step.search_step(CASE, way, layout, order)()).double() for way in WAYS for layout in LAYOUTS
    ]
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], **TOLERANCES[torch.float32]._asdict())


def test_it_runs_and_tells(capsys):
    options = ["--model", "vgg-small", "--width", "0.1", "--batch", "2", "--size", "8", "--rounds", "1"]
    assert search_step.main([*options, "--markdown", "--layout", "channels_last", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "vgg-small, width 0.1, B = 2, T = 4, 8 x 8, order 1" in out
    assert all(f"| {way} | channels_last |" in out for way in WAYS)
    assert "fused against composed, plain equations:" in out and "torch " in out
