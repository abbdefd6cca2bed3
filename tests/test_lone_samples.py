"""With T = 1 BatchNorm has no statistics of one sample whose map is one pixel: such parts of an epoch are none."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano.data import Batch
from stdano.search.loop import SearchRun
from stdano.settings import SearchSettings, TrainSettings, replace
from stdano.training import steps, train
from stdano.training.engine import Run

SMALL = dict(width=0.05, size=4, epochs=1, threads=1, accelerator="cpu", keep_memory=False)
ONE_LEFT = 359  # of 1,437 samples


def made(kind=Run, settings=None, **changes):
    return kind(replace(settings or TrainSettings(), **{**SMALL, **changes}), Path("unused"))


def test_the_last_step_is_left_out(tmp_path, capsys):
    result = train(replace(TrainSettings(), **SMALL, T=1, batch_size=ONE_LEFT), tmp_path / "run")
    assert result.rows[0]["epoch"] == 1
    assert "the last step of an epoch has one sample, too few for BatchNorm with T = 1, and is left out" in (
        " ".join(capsys.readouterr().out.split())
    )


@pytest.mark.parametrize("fuse", [True, False])
def test_where_it_is(fuse):
    """The very step that torch refuses; nothing else is changed."""
    run = made(T=1, batch_size=ONE_LEFT, fuse=fuse)
    assert (run.steps, len(run.train_batches), run.least) == (4, 5, 2)
    for changes in ({"T": 2}, {"size": 8}, {"batch_size": 360}):
        run = made(**{**dict(T=1, batch_size=ONE_LEFT, fuse=fuse), **changes})
        assert (run.steps, run.least) == (len(run.train_batches), 1)


def test_in_a_search():
    run = made(SearchRun, SearchSettings(), T=1, batch_size=717)  # 718 for the weights, 719 for alpha
    assert (run.steps, len(run.train_batches)) == (1, 2)


def test_parts_of_a_step():
    batch = Batch(torch.arange(33.0).reshape(33, 1, 1, 1), torch.arange(33), 33)
    assert [len(part.labels) for part in steps.split(batch, 32)] == [2] * 16 + [1]
    parts = steps.split(batch, 32, least=2)
    assert [len(part.labels) for part in parts] == [2] * 15 + [3]
    assert torch.cat([part.labels for part in parts]).tolist() == list(range(33))
    assert [len(part.labels) for part in steps.split(batch, 100, least=2)] == [2] * 15 + [3]
    assert made(T=1, batch_size=479, accumulate=478).least == 2


def test_batches_of_one():
    with pytest.raises(ValueError, match=r"batch_size must be 2 or more with T = 1, .*, got 1 for 1437 samples"):
        made(T=1, batch_size=1)


def test_several_processes():
    """Each has a sample of a last step of two."""
    setup = made(T=1, batch_size=360)
    two = SimpleNamespace(settings=setup.settings, plain=setup.plain, sample=setup.sample)
    two.fabric = SimpleNamespace(world_size=2, device=setup.fabric.device, autocast=setup.fabric.autocast)
    assert steps.steps_and_least(two, 722, 3) == (2, 2)
    assert steps.steps_and_least(two, 724, 3) == (3, 1)
