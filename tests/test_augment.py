"""Augmentation of a whole batch, against the same written sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from stdano.data import Augmentation
from stdano.data.nda import apply_nda
from stdano.settings import DataSettings

SHAPES = {"images": (12, 3, 9, 9), "frames": (12, 4, 2, 9, 9)}


def pixels(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8)


def drawn(augment: Augmentation, count: int = 12, size: int = 9, seed: int = 0) -> dict[str, Tensor]:
    return augment.draw(count, size, torch.Generator().manual_seed(seed))


def as_float(values: Tensor) -> Tensor:
    return values.float()


@pytest.mark.parametrize("kind", SHAPES)
def test_crop_and_flip(kind: str) -> None:
    augment, values = Augmentation(crop=2, flip=True), pixels(SHAPES[kind])
    draws = drawn(augment)
    result = augment.apply(values, draws, as_float)
    for sample, top, left, flip, got in zip(values, draws["top"], draws["left"], draws["flip"], result, strict=True):
        padded = np.pad(sample.numpy(), [(0, 0)] * (sample.dim() - 2) + [(2, 2), (2, 2)])
        expected = padded[..., top : top + 9, left : left + 9]
        expected = expected[..., ::-1] if flip else expected
        np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize("side", [1, 4, 5, 9])
def test_cutout(side: int) -> None:
    augment, values = Augmentation(cutout=side), pixels(SHAPES["images"])
    draws = drawn(augment)
    result = augment.apply(values, draws, as_float)
    for sample, row, column, got in zip(values, draws["row"].tolist(), draws["column"].tolist(), result, strict=True):
        expected = sample.float()
        top, left = row - side // 2, column - side // 2
        expected[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    holes = (result == 0).all(1).sum((1, 2))
    assert holes.min() >= 1 and holes.max() <= side**2


def test_cutout_is_the_same_in_all_frames_and_filled_after_normalisation() -> None:
    augment, values = Augmentation(cutout=4), pixels(SHAPES["frames"])
    draws = drawn(augment)
    result = augment.apply(values, draws, lambda v: v.float().transpose(0, 1) + 7)
    assert result.shape == (4, 12, 2, 9, 9)
    holes = result == 0
    assert (holes == holes[:1, :, :1]).all() and holes.any((0, 2, 3, 4)).all()
    assert result[~holes].min() >= 8


def test_samples_differ_and_everything_occurs() -> None:
    draws = drawn(Augmentation(crop=4, flip=True, cutout=8), count=2000, size=32)
    assert {name: values.shape for name, values in draws.items()} == dict.fromkeys(
        ("top", "left", "flip", "row", "column"), (2000,)
    )
    assert draws["top"].unique().tolist() == draws["left"].unique().tolist() == list(range(9))
    assert draws["row"].unique().tolist() == draws["column"].unique().tolist() == list(range(32))
    assert 900 < draws["flip"].sum() < 1100
    assert abs(np.corrcoef(draws["top"], draws["left"])[0, 1]) < 0.1


def test_numbers_depend_on_the_generator_alone() -> None:
    augment = Augmentation(crop=4, flip=True, cutout=8)
    first, again, other = drawn(augment), drawn(augment), drawn(augment, seed=1)
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_nothing_is_changed_by_default() -> None:
    augment, values = Augmentation(), pixels(SHAPES["images"])
    assert drawn(augment) == {}
    assert augment.apply(values, {}, as_float).equal(values.float())


@pytest.mark.parametrize("augment", [Augmentation(2), Augmentation(0, True), Augmentation(2, True, 3)])
def test_the_source_stays_as_it_is(augment: Augmentation) -> None:
    values = pixels(SHAPES["images"])
    before = values.clone()
    augment.apply(values, drawn(augment), as_float)
    assert values.equal(before)
    assert augment.apply(values[:0], drawn(augment, 0), as_float).shape == (0, 3, 9, 9)


def test_nda_comes_after_the_crop_and_before_normalisation() -> None:
    augment, values = Augmentation(crop=2, nda=True), pixels(SHAPES["frames"])
    draws = drawn(augment)
    assert set(draws) == {"top", "left", "nda_kind", "nda_amount"}
    result = augment.apply(values, draws, lambda v: v.float() + 7)
    own = {"kind": draws["nda_kind"], "amount": draws["nda_amount"]}
    assert result.equal(apply_nda(Augmentation(crop=2).apply(values, draws, as_float), own) + 7)
    assert not result.equal(Augmentation(crop=2).apply(values, draws, lambda v: v.float() + 7))


def test_from_settings() -> None:
    settings = DataSettings(crop=4, flip=True, cutout=16, nda=True)
    assert Augmentation.from_settings(settings) == Augmentation(4, True, 16, True)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (Augmentation(crop=9), "crop must be at least 0 and below the size, 9, got 9"),
        (Augmentation(crop=-1), "crop must be at least 0 and below the size, 9, got -1"),
        (Augmentation(cutout=10), "cutout must be at least 0 and at most the size, 9, got 10"),
        (Augmentation(cutout=-1), "cutout must be at least 0 and at most the size, 9, got -1"),
    ],
)
def test_bad_values(augment: Augmentation, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        augment.check(9)
