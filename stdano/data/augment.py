"""How training samples are varied: a whole batch at once, each sample by its own numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..settings import DataSettings


@dataclass(frozen=True)
class Augmentation:
    """Crop, flip, NDA, CutOut, in this order; all frames of a sample alike.

    Attributes:
        crop: samples are padded by so many black pixels on each side and cropped to their size at random.
        flip: each sample is mirrored, left to right, with probability one half.
        cutout: side in pixels of a square whose centre lies anywhere in the image; what of it lies inside is filled
            with the mean, 0 after normalisation (CutOut, DeVries and Taylor 2017).
        nda: each sample is rolled, rotated, sheared or cut, see :mod:`stdano.data.nda`.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0
    nda: bool = False

    @classmethod
    def from_settings(cls, settings: DataSettings) -> Augmentation:
        """The augmentation that the settings name."""
        return cls(settings.crop, settings.flip, settings.cutout, settings.nda)

    def check(self, size: int) -> None:
        """Raises ValueError where nothing might be left of samples of ``size`` pixels."""
        if not 0 <= self.crop < size:
            raise ValueError(f"crop must be at least 0 and below the size, {size}, got {self.crop}")
        if not 0 <= self.cutout <= size:
            raise ValueError(f"cutout must be at least 0 and at most the size, {size}, got {self.cutout}")

    def draw(self, count: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of ``count`` samples of ``size`` pixels, each ``[count]`` along its first dimension."""
        draws = {}
        if self.crop:
            for name in ("top", "left"):
                draws[name] = torch.randint(0, 2 * self.crop + 1, (count,), generator=generator)
        if self.flip:
            draws["flip"] = torch.randint(0, 2, (count,), generator=generator).bool()
        if self.cutout:
            for name in ("row", "column"):
                draws[name] = torch.randint(0, size, (count,), generator=generator)
        if self.nda:
            from .nda import draw_nda

            draws |= {f"nda_{name}": values for name, values in draw_nda(count, generator).items()}
        return draws

    def apply(self, values: Tensor, draws: dict[str, Tensor], normalise: Callable[[Tensor], Tensor]) -> Tensor:
        """Varies and normalises samples.

        Args:
            values: uint8 ``[B, C, H, W]`` or ``[B, T, C, H, W]``; 0 is black, or no event.
            draws: from :meth:`draw`, for these B samples.
            normalise: from uint8 like ``values`` to float32 ``[..., B, C, H, W]`` with mean 0.

        Returns:
            What ``normalise`` returns, with squares cut out.
        """
        if self.crop:
            values = self._cropped(values, draws)
        if self.flip:
            mirrored = draws["flip"]
            values = torch.where(mirrored.view(-1, *[1] * (values.dim() - 1)), values.flip(-1), values)
        if self.nda:
            from .nda import apply_nda

            own = {name.removeprefix("nda_"): drawn for name, drawn in draws.items() if name.startswith("nda_")}
            values = apply_nda(values, own)
        values = normalise(values)
        if self.cutout:
            rows = self._covered(draws["row"], values.shape[-2])[:, None, :, None]
            values = values.masked_fill(rows & self._covered(draws["column"], values.shape[-1])[:, None, None, :], 0)
        return values

    def _cropped(self, values: Tensor, draws: dict[str, Tensor]) -> Tensor:
        # all possible crops as a view, of which one a sample is copied
        frames = pad(values, [self.crop] * 4).flatten(1, -3)
        crops = frames.unfold(-2, values.shape[-2], 1).unfold(-2, values.shape[-1], 1)
        return crops[torch.arange(len(values)), :, draws["top"], draws["left"]].view(values.shape)

    def _covered(self, centre: Tensor, length: int) -> Tensor:
        """``[B, length]``: which pixels along one axis belong to a square around each centre."""
        distance = torch.arange(length) - centre[:, None] + self.cutout // 2
        return (distance >= 0) & (distance < self.cutout)
