"""Augmentation of event frames (NDA): each sample is rolled, rotated, sheared or cut, all its frames alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROLL, ROTATE, SHEAR, CUT = range(4)


def draw_nda(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """What is done to each of ``count`` samples.

    Args:
        count: number of samples.
        generator: of the numbers, on the CPU; the same state gives the same numbers.

    Returns:
        ``kind`` int64 ``[count]``: roll, rotate, shear or cut, equally often; and ``amount`` float32 ``[count, 3]``,
        evenly from 0 to below 1: how far.
    """
    kind = torch.randint(4, (count,), generator=generator)
    return {"kind": kind, "amount": torch.rand(count, 3, generator=generator)}


def apply_nda(x: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """Does to each sample what was drawn for it.

    * roll: down and sideways by up to 5 whole pixels each at 48 pixels, in proportion at other sizes, but 1 at least.
      What leaves on one side comes back on the other.
    * rotate: by up to 30 degrees around the centre.
    * shear: rows move sideways by up to tan(30 degrees) of their distance from the centre.
    * cut: a square of up to a third of the height (16 pixels at 48) is emptied; its centre lies anywhere.

    The limits of the first three are those of NDA's published code, which does not cut; that limit is ours. Pixels are
    moved whole, the nearest one, so that no value appears that was not there, except for 0 where nothing comes from.

    Args:
        x: frames ``[B, T, C, H, W]``.
        draws: of :func:`draw_nda`, for ``B`` samples.

    Returns:
        a tensor like ``x``.
    """
    height, width = x.shape[-2:]
    kind = draws["kind"][:, None, None]
    first, second, third = draws["amount"].double().T[:, :, None, None]
    row, column = torch.arange(height)[:, None], torch.arange(width)

    angle, slope = (torch.where(kind == k, (2 * first - 1) * math.radians(30), 0.0) for k in (ROTATE, SHEAR))
    dy, dx = row - (height - 1) / 2, column - (width - 1) / 2
    from_row = (angle.cos() * dy - angle.sin() * dx + height / 2).floor().long()
    from_column = (angle.sin() * dy + (angle.cos() * dx + slope.tan() * dy) + width / 2).floor().long()
    down, right = (_pixels(amount, side) for amount, side in ((first, height), (second, width)))
    from_row = torch.where(kind == ROLL, (row - down) % height, from_row)
    from_column = torch.where(kind == ROLL, (column - right) % width, from_column)

    half = third * height / 6
    hole = ((row + 0.5 - first * height).abs() <= half) & ((column + 0.5 - second * width).abs() <= half)
    empty = (kind == CUT) & hole
    empty |= (from_row < 0) | (from_row >= height) | (from_column < 0) | (from_column >= width)
    place = torch.where(empty, 0, from_row * width + from_column).flatten(1)[:, None].to(x.device)
    moved = x.flatten(3).flatten(1, 2).gather(2, place.expand(-1, x.shape[1] * x.shape[2], -1))
    return moved.view(x.shape).masked_fill_(empty[:, None, None].to(x.device), 0)


def _pixels(amount: Tensor, side: int) -> Tensor:
    """From 0 to below 1: to whole pixels from -limit to limit, each equally often."""
    limit = max(1, round(5 * side / 48))
    return (amount * (2 * limit + 1)).long() - limit
