"""Batches: every sample once an epoch, and the same ones whatever the processes, the workers and the first step."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stdano.data import Augmentation, Batch, Batches, DataSource, Samples

VARIED = Augmentation(crop=2, flip=True, cutout=3)


def make_source(count: int = 23, test: int = 7, *, frames: int = 0, binary: bool = False) -> DataSource:
    """Labels are the positions of the samples."""
    generator = np.random.default_rng(0)
    shape = (frames, 2, 8, 8) if frames else (3, 8, 8)
    parts = [
        Samples(generator.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n, dtype=np.int64))
        for n in (count, test)
    ]
    mean, std = ((0.0, 0.0), (0.5, 0.25)) if frames else ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    return DataSource("made up", *parts, tuple(map(str, range(count))), mean, std, binary)


def with_train(source: DataSource, values: np.ndarray) -> DataSource:
    return dataclasses.replace(source, train=Samples(values, source.train.labels))


def labels(batches: Batches, epoch: int = 0, start: int = 0) -> list[list[int]]:
    return [batch.labels.tolist() for batch in batches.epoch(epoch, start)]


def flat(steps: list[list[int]]) -> list[int]:
    return [label for step in steps for label in step]


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.values.equal(b.values) and a.labels.equal(b.labels) and a.total == b.total


def test_every_sample_once_an_epoch() -> None:
    batches = Batches(make_source(), "train", batch_size=5, shuffle=True)
    assert len(batches) == 5
    epochs = [labels(batches, epoch) for epoch in range(3)]
    for epoch in epochs:
        assert [len(step) for step in epoch] == [5, 5, 5, 5, 3]
        assert sorted(flat(epoch)) == list(range(23))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert labels(batches, 1) == epochs[1]
    assert labels(Batches(make_source(), "train", batch_size=5, shuffle=True, seed=1)) != epochs[0]


def test_in_order_without_shuffle() -> None:
    batches = Batches(make_source(), "test", batch_size=3)
    assert labels(batches, 0) == labels(batches, 4) == [[0, 1, 2], [3, 4, 5], [6]]


def test_indices() -> None:
    subset = np.array([20, 3, 9, 4])
    source = make_source()
    assert labels(Batches(source, "train", batch_size=3, indices=subset)) == [[20, 3, 9], [4]]
    batches = Batches(source, "train", batch_size=3, indices=subset, shuffle=True)
    assert sorted(flat(labels(batches))) == [3, 4, 9, 20]
    (batch,) = Batches(source, "train", batch_size=4, indices=subset).epoch(0)
    (every,) = Batches(source, "train", batch_size=23).epoch(0)
    assert batch.values.equal(every.values[subset])


def test_images_are_normalised() -> None:
    source = make_source()
    (batch,) = Batches(source, "train", batch_size=23).epoch(0)
    mean, std = (np.array(numbers)[:, None, None] for numbers in (source.mean, source.std))
    expected = (source.train.values / 255 - mean) / std
    assert batch.values.dtype == torch.float32 and batch.values.is_contiguous() and batch.labels.dtype == torch.int64
    np.testing.assert_allclose(batch.values.numpy(), expected, rtol=0, atol=1e-6)
    assert batch.total == 23


@pytest.mark.parametrize("binary", [False, True])
def test_frames_come_time_first(binary: bool) -> None:
    source = make_source(frames=4, binary=binary)
    source.train.values[:, :, :, ::2] = 0
    (batch,) = Batches(source, "train", batch_size=23).epoch(0)
    assert batch.values.shape == (4, 23, 2, 8, 8) and batch.values.is_contiguous()
    values = source.train.values.swapaxes(0, 1)
    values = (values > 0) if binary else values / 255
    np.testing.assert_allclose(batch.values.numpy(), values / np.array(source.std)[:, None, None], rtol=1e-6)


@pytest.mark.parametrize("frames", [0, 4])
def test_ranks_together_see_what_one_process_sees(frames: int) -> None:
    augment = dataclasses.replace(VARIED, nda=frames > 0)
    source, options = make_source(frames=frames), {"batch_size": 5, "shuffle": True, "augment": augment}
    alone = list(Batches(source, "train", **options).epoch(3))
    ranks = [list(Batches(source, "train", **options, rank=rank, world=3).epoch(3)) for rank in range(3)]
    for step, whole in enumerate(alone):
        for rank in range(3):
            part = ranks[rank][step]
            own = whole.values[:, rank::3] if frames else whole.values[rank::3]
            assert part.values.equal(own) and part.labels.equal(whole.labels[rank::3]) and part.total == whole.total


def test_start_anywhere() -> None:
    batches = Batches(make_source(), "train", batch_size=5, shuffle=True, augment=VARIED)
    whole = list(batches.epoch(2))
    for start in range(6):
        assert_same(list(batches.epoch(2, start)), whole[start:])


def test_steps_before_the_start_are_not_prepared() -> None:
    read: list[int] = []

    class Counting(np.ndarray):
        def __getitem__(self, index: Any) -> Any:
            read.extend(np.ravel(index).tolist())
            return self.view(np.ndarray)[index]

    source = make_source()
    counting = with_train(source, source.train.values.view(Counting))
    next(Batches(counting, "train", batch_size=5).epoch(0, 3))
    assert read == [15, 16, 17, 18, 19]


@pytest.mark.parametrize("frames", [0, 4])
def test_workers_change_nothing(frames: int) -> None:
    class Unpicklable(np.ndarray):
        def __reduce__(self) -> Any:
            raise AssertionError("copied into a worker")

    source = make_source(frames=frames)
    source = with_train(source, source.train.values.view(Unpicklable))
    options = {"batch_size": 5, "shuffle": True, "augment": VARIED}
    alone = Batches(source, "train", **options)
    helped = Batches(source, "train", **options, workers=2)
    assert_same(list(helped.epoch(0)), list(alone.epoch(0)))
    assert_same(list(helped.epoch(1, 2)), list(alone.epoch(1, 2)))


def test_workers_outlive_an_interrupt() -> None:
    batches = Batches(make_source(200), "train", batch_size=1, workers=1).epoch(0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    assert len(list(batches)) == 199


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(Batches(make_source(), "train", batch_size=12, shuffle=True, augment=VARIED, workers=workers).epoch(0))
    assert before.equal(torch.get_rng_state())


def test_augmentation_differs_by_step_epoch_and_seed() -> None:
    source = make_source(16)
    source.train.values[:] = source.train.values[:1]
    seen = [
        batch.values
        for seed in (0, 1)
        for epoch in (0, 1)
        for batch in Batches(source, "train", batch_size=8, augment=VARIED, seed=seed).epoch(epoch)
    ]
    assert len(seen) == 8 and len({values.numpy().tobytes() for values in seen}) == 8
    assert len({image.numpy().tobytes() for image in seen[0]}) > 4


def test_a_last_batch_smaller_than_the_world_is_left_out_of_training() -> None:
    source = make_source(22, 22)
    ranks = [Batches(source, "train", batch_size=5, shuffle=True, rank=rank, world=3) for rank in range(3)]
    assert [len(batches) for batches in ranks] == [4, 4, 4]
    assert all(len(step) > 0 for batches in ranks for step in labels(batches))
    seen = [label for batches in ranks for label in flat(labels(batches))]
    assert len(seen) == len(set(seen)) == 20
    two = Batches(source, "train", batch_size=5, shuffle=True, world=2)
    assert len(two) == 5


@pytest.mark.parametrize("frames", [0, 4])
def test_a_last_batch_smaller_than_the_world_is_tested_by_some(frames: int) -> None:
    source = make_source(22, 22, frames=frames)
    ranks = [list(Batches(source, "test", batch_size=5, rank=rank, world=3).epoch(0)) for rank in range(3)]
    assert sorted(label for batches in ranks for batch in batches for label in batch.labels.tolist()) == list(range(22))
    empty = ranks[2][-1]
    assert empty.values.shape == ((4, 0, 2, 8, 8) if frames else (0, 3, 8, 8))
    assert empty.labels.shape == (0,) and empty.labels.dtype == torch.int64 and empty.total == 2


def test_memory_maps(tmp_path: Path) -> None:
    source = make_source()
    np.save(tmp_path / "values.npy", source.train.values)
    mapped = with_train(source, np.load(tmp_path / "values.npy", mmap_mode="r"))
    options = {"batch_size": 5, "shuffle": True, "augment": VARIED}
    expected = list(Batches(source, "train", **options).epoch(0))
    for workers in (0, 1):
        assert_same(list(Batches(mapped, "train", **options, workers=workers).epoch(0)), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "valid"}, "part must be train or test, got 'valid'"),
        ({"rank": 2, "world": 2}, "rank must be at least 0 and below world, got rank 2 and world 2"),
        ({"rank": 0, "world": 0}, "rank must be at least 0 and below world, got rank 0 and world 0"),
        ({"batch_size": 0}, "batch_size must be at least the number of processes, 1, got 0"),
        ({"batch_size": 3, "world": 4}, "batch_size must be at least the number of processes, 4, got 3"),
        ({"workers": -1}, "workers and seed must be 0 or more, got -1 and 0"),
        ({"seed": -1}, "workers and seed must be 0 or more, got 0 and -1"),
        ({"indices": np.zeros(2)}, r"indices must be 1 or more integers, got float64 of shape \(2,\)"),
        ({"indices": np.zeros(0, int)}, r"indices must be 1 or more integers, got int64 of shape \(0,\)"),
        ({"indices": np.array([0, 23])}, "indices must be at least 0 and below 23, the samples of train, got 0 to 23"),
        ({"indices": np.array([-1, 3])}, "indices must be at least 0 and below 23, the samples of train, got -1 to 3"),
        ({"indices": np.arange(2), "world": 3, "shuffle": True}, "as many as processes, got 2 for 3"),
        ({"augment": Augmentation(crop=8)}, "crop must be at least 0 and below the size, 8, got 8"),
        ({"augment": Augmentation(nda=True)}, "nda must be False for images, it is for events, got True"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batches(make_source(), **{"part": "train", "batch_size": 5, **options})


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0, -1), (0, 6)])
def test_bad_steps(epoch: int, start: int) -> None:
    with pytest.raises(ValueError, match="epoch and start must be 0 or more, start at most 5"):
        Batches(make_source(), "train", batch_size=5).epoch(epoch, start)
