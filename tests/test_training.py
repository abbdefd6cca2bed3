"""Training: the loss, checkpoints, and runs that go on as if nothing had happened."""

import csv
import dataclasses
import json
import math
import signal

import pytest
import torch

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("sklearn", reason="needs the extra [app]")

from stdano.data import load_digits
from stdano.models import SmallConvNet
from stdano.presets import PRESETS, TrainSettings
from stdano.training import loop, report
from stdano.training.checkpoint import load_checkpoint, save_checkpoint, write_atomically
from stdano.training.loss import predict, tet_loss

TINY = TrainSettings(channels=(4, 4), epochs=3, batch_size=256, dropout=0.2, T=2, threads=1, accelerator="cpu")


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


def test_digits_are_real_split_and_normalised():
    data = load_digits()
    assert data.train_images.shape == (1437, 1, 8, 8) and data.test_images.shape == (360, 1, 8, 8)
    assert abs(data.train_images.mean().item()) < 1e-4 and data.train_images.std().item() == pytest.approx(1, abs=1e-4)
    assert data.test_labels.bincount().min() > 30
    train = {image.numpy().tobytes() for image in data.train_images}
    assert sum(image.numpy().tobytes() in train for image in data.test_images) == 0


@pytest.mark.parametrize("neuron", ["LIF", "LLIF", "SLIF"])
def test_small_network(neuron):
    net = SmallConvNet(3, 7, neuron, T=3, channels=(4, 5, 6), dropout=0.5, tau=1.5)
    logits = net(torch.randn(2, 3, 9, 9))
    assert logits.shape == (3, 2, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def bits(folder):
    """What must be equal between an interrupted and an uninterrupted run: weights, metrics without times."""
    state = load_checkpoint(folder / loop.CHECKPOINT)
    with open(folder / loop.METRICS) as file:
        rows = [
            {k: v for k, v in row.items() if "seconds" not in k and "second" not in k} for row in csv.DictReader(file)
        ]
    return state["model"], rows


def assert_same_run(a, b):
    (weights, rows), (other_weights, other_rows) = bits(a), bits(b)
    assert rows == other_rows
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    loop.start(TINY, folder)
    return folder


def ctrl_c_after(epoch, step):
    def after_step(progress):
        if (progress.epoch, progress.step) == (epoch, step):
            signal.raise_signal(signal.SIGINT)

    return after_step


@pytest.mark.parametrize("position", [(0, 1), (1, 3), (1, 6)], ids=["first step", "middle", "end of an epoch"])
def test_ctrl_c_and_resume_end_with_the_same_bits(position, whole, tmp_path):
    folder = tmp_path / "run"
    handler = signal.getsignal(signal.SIGINT)  # a process in the background may ignore the signal
    with pytest.raises(loop.Interrupted, match=f"stdano train --resume {folder}"):
        loop.start(TINY, folder, after_step=ctrl_c_after(*position))
    torch.manual_seed(123)  # whatever happens in between
    loop.resume(folder)
    assert_same_run(folder, whole)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_killed_run_goes_on_from_its_last_epoch(whole, tmp_path):
    folder = tmp_path / "run"

    def die(progress):
        if (progress.epoch, progress.step) == (2, 2):
            raise SystemExit("as if killed: nothing is saved")

    with pytest.raises(SystemExit):
        loop.start(TINY, folder, after_step=die)
    assert load_checkpoint(folder / loop.CHECKPOINT)["progress"]["epoch"] == 2
    (folder / loop.METRICS).write_text("damaged")
    loop.resume(folder)
    assert_same_run(folder, whole)


def test_killed_before_the_first_epoch(whole, tmp_path):
    folder = tmp_path / "run"

    def die(progress):
        raise SystemExit

    with pytest.raises(SystemExit):
        loop.start(TINY, folder, after_step=die)
    loop.resume(folder)
    assert_same_run(folder, whole)


def test_resuming_a_finished_run_changes_nothing(whole):
    before = bits(whole)[1]
    assert loop.resume(whole) == load_checkpoint(whole / loop.CHECKPOINT)["progress"]["rows"]
    assert bits(whole)[1] == before


def test_another_seed_is_another_run(whole, tmp_path):
    loop.start(dataclasses.replace(TINY, seed=1, epochs=1), tmp_path / "run")
    assert bits(tmp_path / "run")[1][0] != bits(whole)[1][0]


def test_run_folder(whole):
    assert {path.name for path in whole.iterdir()} == {"settings.json", "checkpoint.pt", "metrics.csv", "curve.png"}
    assert TrainSettings.from_json(whole / "settings.json") == TINY
    assert json.loads((whole / "settings.json").read_text())["neuron"] == "LLIF"
    with open(whole / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == report.COLUMNS and [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(0 < float(row["firing_rate"]) < 1 and float(row["images_per_second"]) > 0 for row in rows)
    from PIL import Image

    with Image.open(whole / "curve.png") as image:
        assert image.format == "PNG" and image.width >= 1000 and len(image.getcolors(1 << 20)) > 50


def test_a_folder_in_use_is_refused(whole):
    with pytest.raises(ValueError, match=f"out must be a new or empty folder, {whole} is not"):
        loop.start(TINY, whole)


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"settings\.json must hold the settings of a run"):
        loop.resume(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"T": 0}, "T must be 1 or more, got 0"),
        ({"batch_size": -1}, "batch_size must be 1 or more, got -1"),
        ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
        ({"lr": math.inf}, "lr must be a finite number above 0, got inf"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1.0"),
        ({"neuron": "ALIF"}, "neuron must be one of LIF, LLIF, SLIF, got 'ALIF'"),
        ({"dataset": "mnist"}, "dataset must be one of digits, got 'mnist'"),
        ({"channels": ()}, "channels must be one or more numbers"),
        ({"tau": 0.0}, "tau must be a finite number above 0, got 0.0"),
        ({"surrogate_function": "tri"}, "surrogate_function must be one of 'triangle'"),
        ({"backend": "fpga"}, "backend must be one of 'auto'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings_leave_no_folder(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        loop.start(dataclasses.replace(TINY, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_digits_preset_reaches_96_percent(tmp_path):
    rows = loop.start(PRESETS["digits"], tmp_path / "run")
    assert rows[-1]["test_accuracy"] >= 0.96
