"""Training: the loss, checkpoints, and runs that go on as if nothing had happened."""

import csv
import errno
import json
import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano import LIFNode
from stdano.files import write_atomically
from stdano.presets import get_preset
from stdano.settings import DataSettings, TrainSettings, read_settings, replace
from stdano.training import Diverged, Interrupted, evaluate, predict, resume, setup, tet_loss, train
from stdano.training.checkpoint import load_checkpoint, save_checkpoint

TINY = replace(
    TrainSettings(), width=0.1, dropout=0.2, T=2, epochs=3, batch_size=256, crop=1, threads=1, accelerator="cpu"
)
FILES = {"settings.json", "last.pt", "best.pt", "metrics.csv", "curve.png"}


def test_threads_are_those_that_were_asked_for(monkeypatch):
    """Also where Fabric has set another number for the processes that it started."""
    before, make = torch.get_num_threads(), setup.make_fabric

    def make_fabric(run):
        torch.set_num_threads(2)
        return make(run)

    monkeypatch.setattr(setup, "make_fabric", make_fabric)
    settings = replace(TrainSettings(), data="digits", width=0.25, accelerator="cpu")
    try:
        for asked, used in ((3, 3), (0, 2)):
            made = setup.Setup(replace(settings, threads=asked))
            assert torch.get_num_threads() == made.settings.run.threads == used
    finally:
        torch.set_num_threads(before)


def test_tet_loss_by_hand():
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]])  # T = 2, one image, two classes, class 0
    entropy = (math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(1.0))) / 2
    error = (1.0 + 1.0 + 1.0 + 0.0) / 4  # squared distances to 1
    expected = 0.95 * entropy + 0.05 * error
    assert tet_loss(logits, torch.tensor([0])).item() == pytest.approx(expected)
    assert tet_loss(logits, torch.tensor([0]), lam=0.0).item() == pytest.approx(entropy)
    assert tet_loss(logits, torch.tensor([0]), lam=1.0, v_threshold=0.0).item() == pytest.approx(5 / 4)
    assert predict(logits).tolist() == [0]


def test_tet_loss_is_the_mean_over_steps():
    logits, target = torch.randn(3, 5, 4), torch.randint(0, 4, (5,))
    steps = [tet_loss(step[None], target) for step in logits]
    torch.testing.assert_close(tet_loss(logits, target), torch.stack(steps).mean())


@pytest.mark.parametrize("shape", [(3, 5), (3, 6, 4)])
def test_tet_loss_names_wrong_shapes(shape):
    with pytest.raises(ValueError, match=r"logits must have shape \[T, B, classes\] and target \[B\], got"):
        tet_loss(torch.zeros(shape), torch.zeros(5, dtype=torch.int64))


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"a": torch.ones(2), "b": [1, {"c": 2.5}]})

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert load_checkpoint(path)["b"] == [1, {"c": 2.5}]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="must be a checkpoint, but there is no such file"):
        load_checkpoint(tmp_path / "none.pt")


def bits(folder):
    """What must be equal between an interrupted and an uninterrupted run: weights, metrics without times."""
    times = ("seconds", "images_per_second", "waiting")
    with open(folder / "metrics.csv") as file:
        rows = [{k: v for k, v in row.items() if k not in times} for row in csv.DictReader(file)]
    states = [load_checkpoint(folder / name)["model"] for name in ("last.pt", "best.pt")]
    return states, rows


def assert_same_run(a, b):
    (states, rows), (other_states, other_rows) = bits(a), bits(b)
    assert rows == other_rows
    for state, other in zip(states, other_states, strict=True):
        assert all(torch.equal(state[name], other[name]) for name in state)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(TINY, folder)
    return folder


def ctrl_c_after(epoch, step):
    def after_step(progress):
        if (progress.epoch, progress.step) == (epoch, step):
            signal.raise_signal(signal.SIGINT)

    return after_step


@pytest.mark.parametrize(
    "position",
    [
        pytest.param((0, 1), id="first step", marks=pytest.mark.slow),
        pytest.param((1, 3), id="middle"),
        pytest.param((1, 6), id="end of an epoch", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_and_resume_end_with_the_same_bits(position, whole, tmp_path):
    folder, stopped = tmp_path / "run", []
    handler = signal.getsignal(signal.SIGINT)  # a process in the background may ignore the signal

    def after_step(progress):
        if (progress.epoch, progress.step) == position:
            signal.raise_signal(signal.SIGINT)
            stopped.append(position)

    with pytest.raises(Interrupted, match=f"stdano train --resume {folder}"):
        train(TINY, folder, after_step=after_step)
    assert stopped == [position]
    torch.manual_seed(123)  # whatever happens in between
    resume(folder)
    assert_same_run(folder, whole)
    assert signal.getsignal(signal.SIGINT) is handler


def test_sigkill_and_resume_end_with_the_same_bits(whole, tmp_path):
    """The process dies in its third epoch, with nothing but the system's word; what follows the checkpoint is made
    anew."""
    folder = tmp_path / "run"
    (tmp_path / "settings.json").write_text((whole / "settings.json").read_text())
    code = f"""
import os, signal
from pathlib import Path
from stdano.settings import TrainSettings, read_settings
from stdano.training import train
def die(progress):
    if (progress.epoch, progress.step) == (2, 2):
        os.kill(os.getpid(), signal.SIGKILL)
train(read_settings(Path({str(tmp_path / "settings.json")!r}), TrainSettings), Path({str(folder)!r}), after_step=die)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    assert load_checkpoint(folder / "last.pt")["progress"]["epoch"] == 2
    (folder / "metrics.csv").write_text("damaged")
    resume(folder)
    assert_same_run(folder, whole)


def test_killed_before_the_first_epoch(whole, tmp_path):
    def die(progress):
        raise SystemExit

    with pytest.raises(SystemExit):
        train(TINY, tmp_path / "run", after_step=die)
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


def test_killed_before_the_first_checkpoint(whole, tmp_path):
    (tmp_path / "settings.json").write_text((whole / "settings.json").read_text())
    resume(tmp_path)
    assert_same_run(tmp_path, whole)


def test_resuming_a_finished_run_changes_nothing(whole):
    before = bits(whole)
    assert resume(whole).rows == load_checkpoint(whole / "last.pt")["progress"]["rows"]
    assert bits(whole)[1] == before[1]


def test_another_seed_is_another_run(whole, tmp_path):
    train(replace(TINY, seed=1, epochs=1), tmp_path / "run")
    assert bits(tmp_path / "run")[1][0] != bits(whole)[1][0]


def test_run_folder(whole):
    assert {path.name for path in whole.iterdir()} == FILES
    assert read_settings(whole / "settings.json", TrainSettings) == TINY
    assert json.loads((whole / "settings.json").read_text())["model"]["neurons"] == "LLIF"
    with open(whole / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(0 < float(row["firing_rate"]) < 1 and float(row["images_per_second"]) > 0 for row in rows)
    assert all(0 <= float(row["waiting"]) < 1 for row in rows)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    from PIL import Image

    with Image.open(whole / "curve.png") as image:
        assert image.format == "PNG" and image.width >= 600 and len(image.getcolors(1 << 20)) > 50


def test_evaluate_repeats_the_test(whole):
    rows = load_checkpoint(whole / "last.pt")["progress"]["rows"]
    for checkpoint, row in (("last", rows[-1]), ("best", max(rows, key=lambda row: row["test_accuracy"]))):
        found = evaluate(whole, checkpoint)
        assert (found.loss, found.accuracy, found.firing_rate) == (
            row["test_loss"],
            row["test_accuracy"],
            row["firing_rate"],
        )
    assert found.samples == 360 and len(found.layer_rates) == 4
    with pytest.raises(ValueError, match="checkpoint must be one of best, last, got 'first'"):
        evaluate(whole, "first")
    sixteen = evaluate(whole, "last", data=DataSettings(size=16))
    assert sixteen.samples == 360 and sixteen.loss != found.loss


def test_a_folder_in_use_is_refused(whole):
    with pytest.raises(ValueError, match=f"out must be a new or empty folder, {whole} is not"):
        train(TINY, whole)


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"settings\.json must hold the settings of a run"):
        resume(tmp_path)


def test_resume_needs_the_same_data(whole, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes((whole / name).read_bytes())
    text = (folder / "settings.json").read_text()
    (folder / "settings.json").write_text(text.replace('"size": 0', '"size": 16'))
    with pytest.raises(ValueError, match=f"the data of digits must be those that {folder} began with"):
        resume(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"T": 0}, "T must be 1 or more, got 0"),
        ({"batch_size": -1}, "batch_size must be 1 or more, got -1"),
        ({"accumulate": 0}, "accumulate must be 1 or more, got 0"),
        ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
        ({"lr": math.inf}, "lr must be a finite number above 0, got inf"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1.0"),
        ({"neurons": "ELIF"}, "neurons must be .*got 'ELIF'"),
        ({"neurons": "LIF(tau=0)"}, "tau must be a finite number above 0, got 0"),
        ({"neurons": "0120"[:3]}, "neurons must be .*got 3 digits, '012'"),
        ({"data": "mnist"}, "data must be one of digits.*got 'mnist'"),
        ({"model": "vgg12"}, "must be one of vgg-small.*got 'vgg12'"),
        ({"tau": 0.0}, "tau must be a finite number above 0, got 0.0"),
        ({"surrogate_function": "tri"}, "surrogate_function must be one of 'triangle'"),
        ({"backend": "fpga"}, "backend must be one of auto"),
        ({"precision": "8"}, "precision must be one of 32-true"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings_leave_no_folder(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(replace(TINY, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(Diverged) as stopped:
        train(replace(TINY, lr=1e30, dropout=0.0), tmp_path / "run")
    message, error = str(stopped.value), stopped.value
    assert message.startswith(f"the training loss is {'nan' if 'is nan' in message else 'inf'} in epoch 1, step 2;")
    assert (error.epoch, error.step) == (1, 2) and len(error.rates) == 4
    assert all(name in message for name in error.rates)
    state = load_checkpoint(tmp_path / "run" / "last.pt")
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_full_disk_is_reported_before_training(tmp_path, monkeypatch):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"out must be a folder in which \d+ MiB can be written.*No space left"):
        train(TINY, tmp_path / "run", after_step=lambda progress: pytest.fail("a step was done"))
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_reported_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"out must be a folder in which \d+ MiB can be written, .*file/run is not"):
        train(TINY, tmp_path / "file" / "run", after_step=lambda progress: pytest.fail("a step was done"))


class NoNorm(nn.Module):
    """A network of somebody else's: time first, and without BatchNorm, so that parts of a batch add up to all of it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(2), nn.Linear(64, 32), LIFNode(), nn.Linear(32, 10))

    def forward(self, x):
        assert x.shape[0] == TINY.model.T and x.shape[2:] == (1, 8, 8)
        return self.layers(x)


def test_accumulation_is_one_step(tmp_path):
    """The sum over parts, also where they are not equally large: 1437 samples, 256 a step, in 3 parts."""
    a, b = NoNorm(), NoNorm()
    one_epoch = replace(TINY, epochs=1, lr=0.01)
    train(one_epoch, tmp_path / "a", model=a)
    train(replace(one_epoch, accumulate=3), tmp_path / "b", model=b)
    for (name, parameter), other in zip(a.named_parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-3, atol=1e-5, msg=name)
    assert evaluate(tmp_path / "a", "last", model=NoNorm()).samples == 360


def test_mixed_precision(tmp_path):
    result = train(replace(TINY, precision="bf16-mixed", epochs=2), tmp_path / "run")
    assert result.last["train_loss"] < result.rows[0]["train_loss"]
    saved = load_checkpoint(tmp_path / "run" / "last.pt")["model"]
    assert {value.dtype for value in saved.values() if value.is_floating_point()} == {torch.float32}


def test_tensorboard(tmp_path):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    result = train(replace(TINY, epochs=2, tensorboard=True), tmp_path / "run")
    log = events.EventAccumulator(str(tmp_path / "run"))
    log.Reload()
    logged = [event.value for event in log.Scalars("test_accuracy")]
    assert logged == pytest.approx([row["test_accuracy"] for row in result.rows])


@pytest.mark.slow
def test_digits_preset_reaches_97_percent(tmp_path):
    assert train(get_preset("digits").train, tmp_path / "run").last["test_accuracy"] >= 0.97
