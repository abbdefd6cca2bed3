"""Frames hold every event, for any number of events and frames; the digits' events are what a camera would see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdano.data import Augmentation, Batches, load_data
from stdano.data.events import load_events
from stdano.data.events.digits import BLACK, CONTRAST, SENSOR, STEP, _light, digits_events, film
from stdano.data.events.frames import to_frames
from stdano.data.events.recordings import EVENTS
from stdano.settings import DataSettings


def events(*rows: tuple[int, int, int, int]) -> np.ndarray:
    """From (t, x, y, p)."""
    return np.array(list(rows), dtype=EVENTS)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([0, 1, 2, 3, 7, 40, 601]),
    T=st.integers(1, 12),
    rule=st.sampled_from(["count", "time"]),
    duration=st.sampled_from([1, 5, 300_000, 2**40]),
    sensor=st.sampled_from([(34, 34), (20, 7), (7, 20), None]),
    size=st.sampled_from([1, 6, 20]),
)
def test_no_event_is_lost(
    seed: int, count: int, T: int, rule: str, duration: int, sensor: tuple[int, int] | None, size: int
) -> None:
    rng = np.random.default_rng(seed)
    width, height = sensor or (50, 11)
    given_events = np.empty(count, EVENTS)
    given_events["t"] = rng.integers(-5, duration, count)
    given_events["x"], given_events["y"] = rng.integers(0, width, count), rng.integers(0, height, count)
    given_events["p"] = rng.integers(0, 2, count)
    before = given_events.copy()
    frames, saturated = to_frames(given_events, T, rule, sensor, size)
    assert frames.shape == (T, 2, size, size) and frames.dtype == np.uint8
    assert frames.sum(dtype=np.int64) + saturated == count
    assert (frames[:, 1].sum(dtype=np.int64) == given_events["p"].sum()) or saturated
    assert (given_events == before).all()
    if rule == "count" and not saturated:
        assert frames.sum((1, 2, 3)).tolist() == [count // T] * (T - 1) + [count - count // T * (T - 1)]


def test_count_rule_gives_the_remainder_to_the_last_frame() -> None:
    given_events = events(*((t, t, 0, 1) for t in range(8)))
    frames, _ = to_frames(given_events, 3, "count", (8, 8), 8)
    assert [np.flatnonzero(frame[1, 0]).tolist() for frame in frames] == [[0, 1], [2, 3], [4, 5, 6, 7]]
    frames, _ = to_frames(given_events[:2], 3, "count", (8, 8), 8)
    assert frames.sum((1, 2, 3)).tolist() == [0, 0, 2]


def test_time_rule_has_equal_durations_and_the_last_event() -> None:
    given_events = events(*((t, x, 0, 1) for x, t in enumerate([100, 133, 134, 166, 167, 199, 200])))
    frames, _ = to_frames(given_events, 3, "time", (8, 8), 8)
    assert [np.flatnonzero(frame[1, 0]).tolist() for frame in frames] == [[0, 1], [2, 3], [4, 5, 6]]
    at_once, _ = to_frames(events((7, 0, 0, 0), (7, 1, 0, 0)), 4, "time", (8, 8), 8)
    assert at_once.sum() == 2


@pytest.mark.parametrize("rule", ["count", "time"])
def test_order_of_time_counts_and_ties_stay(rule: str) -> None:
    rng = np.random.default_rng(0)
    given_events = events(*((t, x, 2, 0) for x, t in enumerate(rng.integers(0, 9, 30))))
    ordered = given_events[np.argsort(given_events["t"], kind="stable")]
    assert (to_frames(given_events, 7, rule, (34, 34), 34)[0] == to_frames(ordered, 7, rule, (34, 34), 34)[0]).all()


def test_places_channels_and_scaling() -> None:
    given_events = events((0, 127, 0, 1), (1, 0, 127, 0), (2, 64, 3, 1), (3, 65, 4, 1))
    frames, _ = to_frames(given_events, 1, "count", (128, 128), 48)
    assert sorted(map(tuple, np.argwhere(frames[0]).tolist())) == [(0, 47, 0), (1, 0, 47), (1, 1, 24)]
    assert frames[0, 1, 1, 24] == 2
    wide, _ = to_frames(events((0, 0, 0, 0), (1, 7, 3, 1)), 1, "count", (8, 4), 4)
    assert sorted(map(tuple, np.argwhere(wide[0]).tolist())) == [(0, 1, 0), (1, 2, 3)]


def test_saturation_is_counted() -> None:
    frames, saturated = to_frames(events(*[(0, 1, 1, 1)] * 300, *[(0, 0, 0, 0)] * 255), 1, "time", (2, 2), 2)
    assert saturated == 45 and frames[0, 1, 1, 1] == 255 and frames[0, 0, 0, 0] == 255


def place(t: int) -> tuple[float, float]:
    """Where the image is at a time: it goes down for 100 ms, up for 100 ms, and back to the left."""
    return float(np.interp(t / 1e5, [0, 1, 2, 3], [-2, 0, 2, -2])), float(np.interp(t / 1e5, [0, 1, 2], [-2, 2, -2]))


def test_a_pixel_that_changes_makes_the_events_of_its_contrast() -> None:
    """One bright pixel: each sensor pixel's events lead from the level it had to the one it ends with."""
    image = np.zeros((1, 8, 8))
    image[0, 4, 4] = 1
    (found,) = film(image)
    assert len(found) > 20 and (np.diff(found["t"]) >= 0).all()
    assert found["t"].min() >= 0 and found["t"].max() <= 300_000
    most = np.log((BLACK + 1) / BLACK) / CONTRAST
    for x, y in np.unique(found[["x", "y"]]):
        at = found[(found["x"] == x) & (found["y"] == y)]
        level = np.cumsum(np.where(at["p"], 1, -1))
        assert level[-1] == 0 and np.abs(level).max() <= most  # the path is closed
        # Between two steps of the path the logarithm is a straight line.
        k = at["t"] // STEP
        start, end = (np.array([_light(image, *place(i * STEP))[0, y, x] for i in k + j]) for j in (0, 1))
        light = start + (at["t"] - k * STEP) / STEP * (end - start)
        assert light == pytest.approx(_light(image, *place(0))[0, y, x] + level * CONTRAST, abs=1e-3)
    assert len(film(np.full((1, 8, 8), 0.5))) == 1
    assert (film(image)[0] == found).all()


def test_digits_events(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = digits_events()
    labels = load_digits().target
    train, test = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    assert (source.train.labels == labels[train]).all() and (source.test.labels == labels[test]).all()

    settings = DataSettings(data="digits-events", cache=str(tmp_path))
    data = load_events(settings, 4)
    assert data.train.values.shape == (1437, 4, 2, SENSOR, SENSOR) and data.test.values.shape[0] == 360
    assert data.temporal and data.in_channels == 2 and data.size == 16 and data.num_classes == 10 and not data.binary
    lengths = data.train.values.sum((1, 2, 3, 4), dtype=np.int64)
    assert data.mean == (0, 0) and lengths.min() > 300 and lengths.max() < 5000
    seen = data.train.values[data.train.values > 0] / 255 / data.std[0]
    assert np.square(seen).mean() == pytest.approx(1)
    assert load_events(settings, 4).fingerprint() == data.fingerprint()


def test_arguments_are_checked_first(tmp_path: Path) -> None:
    settings = {"root": str(tmp_path), "cache": str(tmp_path)}
    with pytest.raises(ValueError, match="T must be 1 or more, got 0"):
        load_events(DataSettings(data="digits-events", **settings), 0)
    with pytest.raises(ValueError, match="size must be at most 16, the sensor's, for digits-events, got 17"):
        load_events(DataSettings(data="digits-events", size=17, **settings), 1)
    with pytest.raises(ValueError, match="data must be one of digits-events, nmnist,.*, got 'digits'"):
        load_events(DataSettings(data="digits", **settings), 1)
    assert not list(tmp_path.iterdir())


def test_batches_of_events_with_nda(tmp_path: Path) -> None:
    data = load_data(DataSettings(data="digits-events", cache=str(tmp_path), size=8), 2)
    batches = Batches(data, "test", batch_size=64, augment=Augmentation(nda=True), indices=np.arange(100))
    first, second = batches.epoch(0)
    assert first.values.shape == (2, 64, 2, 8, 8) and second.values.shape == (2, 36, 2, 8, 8)
    plain = next(Batches(data, "test", batch_size=64, indices=np.arange(100)).epoch(0))
    assert not (plain.values == first.values).all() and set(first.values.unique().tolist()) <= set(
        plain.values.unique().tolist()
    )
