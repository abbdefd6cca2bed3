"""NDA: what was drawn is done to all frames of a sample alike, and pixels are only moved."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional

from stdano.data.nda import CUT, ROLL, ROTATE, SHEAR, apply_nda, draw_nda


def draws(kind: int, *amounts: tuple[float, float, float]) -> dict[str, Tensor]:
    return {"kind": torch.full((len(amounts),), kind), "amount": torch.tensor(amounts)}


def frames(*shape: int) -> Tensor:
    """Every pixel has a value of its own, from 1, so that it is seen where it went."""
    return torch.arange(1, math.prod(shape) + 1, dtype=torch.float32).view(shape)


def test_the_generator_decides_and_all_kinds_come() -> None:
    first, again, other = (draw_nda(400, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["kind"], other["kind"]) and not torch.equal(first["amount"], other["amount"])
    assert (torch.bincount(first["kind"]) > 70).all() and len(torch.bincount(first["kind"])) == 4
    assert first["kind"].shape == (400,) and first["amount"].min() >= 0 and first["amount"].max() < 1


def test_all_frames_alike_each_sample_for_itself_no_new_values() -> None:
    one = frames(1, 1, 1, 12, 12)
    x = one.expand(64, 3, 2, 12, 12).contiguous()
    before = x.clone()
    y = apply_nda(x, draw_nda(64, torch.Generator().manual_seed(0)))
    assert y.shape == x.shape and y.dtype == x.dtype and torch.equal(x, before)
    assert (y == y[:, :1, :1]).all()
    assert len({tuple(sample[0, 0].flatten().tolist()) for sample in y}) > 30
    assert set(y.unique().tolist()) <= {0.0, *one.flatten().tolist()}


def test_channels_and_frames_keep_their_places() -> None:
    x = torch.ones(40, 3, 2, 8, 8) * frames(3, 2, 1, 1)
    y = apply_nda(x, draw_nda(40, torch.Generator().manual_seed(1)))
    assert ((y == x) | (y == 0)).all()


@pytest.mark.parametrize(("side", "limit"), [(48, 5), (16, 2), (128, 13), (4, 1)])
def test_roll_keeps_all_and_reaches_its_limits(side: int, limit: int) -> None:
    x = frames(1, 2, 1, side, side)
    wide = 2 * limit + 1
    amounts = [((i + 0.5) / wide, 1 - (i + 0.5) / wide, 0.0) for i in range(wide)]
    y = apply_nda(x.expand(wide, 2, 1, side, side), draws(ROLL, *amounts))
    for i, rolled in enumerate(y):
        assert torch.equal(rolled, torch.roll(x[0], (i - limit, limit - i), (-2, -1)))


def test_rotate_as_torchvision() -> None:
    x = frames(1, 2, 2, 24, 24)
    for amount in (0.0, 0.2, 0.55, 0.95):
        y = apply_nda(x, draws(ROTATE, (amount, 0.5, 0.5)))
        assert torch.equal(y[0], functional.rotate(x[0], -30 * (2 * amount - 1)))
    assert torch.equal(apply_nda(x, draws(ROTATE, (0.5, 0.1, 0.9))), x)


def test_shear_as_torchvision() -> None:
    x = frames(1, 2, 2, 24, 24)
    for amount in (0.0, 0.2, 0.55, 0.95):
        y = apply_nda(x, draws(SHEAR, (amount, 0.5, 0.5)))
        assert torch.equal(y[0], functional.affine(x[0], 0, [0, 0], 1, [30 * (2 * amount - 1), 0]))


def test_cut_empties_a_square() -> None:
    x = frames(1, 2, 2, 48, 48)
    y = apply_nda(x, draws(CUT, (0.5, 0.25, 1.0 - 2**-20)))
    expected = x.clone()
    expected[..., 16:32, 4:20] = 0
    assert torch.equal(y, expected)
    corner = apply_nda(x, draws(CUT, (0.0, 0.0, 0.75)))
    assert (corner[..., :6, :6] == 0).all() and torch.equal(corner[..., 6:, :], x[..., 6:, :])
    assert torch.equal(apply_nda(x, draws(CUT, (0.5, 0.5, 0.0))), x)


def test_what_comes_from_outside_is_empty_whatever_lies_inside() -> None:
    x = torch.full((1, 1, 1, 16, 16), math.nan)
    y = apply_nda(x, draws(ROTATE, (1.0 - 2**-20, 0.5, 0.5)))
    assert y[0, 0, 0, 0, 0] == 0 and y[0, 0, 0, 8, 8].isnan()
