"""Image files, decoded into the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import cached, fingerprint

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 2
"""of the rules below; another number makes cached images anew"""

_CHUNK = 100
_ORIENTATION = 0x0112  # of EXIF


def decoded(
    files: Sequence[Path], root: Path, size: int, cache: str, key: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """RGB images from files, by way of the cache.

    Images are turned as their EXIF orientation says. With a size, the shorter side of each is resized to it (bilinear,
    antialiased), and the centre is cut out. Grey images become RGB; transparency is dropped.

    Args:
        files: below ``root``; at least one.
        root: folder that the files' names in the cache are relative to.
        size: height and width; 0: that of the images, which then must all be alike.
        cache: folder of the cache, see :func:`cached`.
        key: tells these images from others in the cache, besides files and size.

    Returns:
        uint8 ``[N, 3, size, size]``, a read-only memory map, and ``mean`` and ``std`` of its channels.

    Raises:
        ValueError: a file is missing or no image, or ``size`` is 0 and images differ in size or are not square.
    """
    try:
        files_key = fingerprint(files, root)
    except OSError as error:
        raise ValueError(f"{error.filename} is missing or cannot be read: {error}") from error
    first = _read(files[0], size)
    if first.shape[1] != first.shape[2]:
        raise ValueError(f"size must be given where images are not square: {files[0]} is {_pixels(first)}")

    def fill(values: np.ndarray) -> dict[str, Any]:
        def some(begin: int) -> None:
            for place, file in enumerate(files[begin : begin + _CHUNK], begin):
                image = _read(file, size)
                if image.shape != first.shape:
                    sizes = f"{files[0]} is {_pixels(first)}, {file} {_pixels(image)}"
                    raise ValueError(f"size must be given where images differ in size: {sizes}")
                values[place] = image

        _in_threads(some, range(0, len(files), _CHUNK))
        mean, std = channel_statistics(values)
        return {"mean": mean, "std": std}

    key = {**key, "size": size, "version": VERSION, "files": files_key}
    return cached(cache, key, (len(files), *first.shape), fill)


def channel_statistics(values: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 ``[N, C, H, W]``, in units of 255; the deviation is 1 for
    a channel whose pixels are all alike."""
    counts = np.zeros((values.shape[1], 256), dtype=np.int64)
    for begin in range(0, len(values), _CHUNK):
        for channel, pixels in enumerate(values[begin : begin + _CHUNK].swapaxes(0, 1)):
            counts[channel] += np.bincount(pixels.ravel(), minlength=256)
    share, level = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ level
    std = np.sqrt((share * (level - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _in_threads(work: Callable[[int], None], parts: Sequence[int]) -> None:
    """Decoding does not hold the interpreter; shows how far it is."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)  # its own, since a console shows one thing that moves at a time
    with ThreadPoolExecutor() as pool:
        done = pool.map(work, parts)
        hidden = not console.is_terminal
        for _ in track(done, "Decoding images, once", len(parts), transient=True, console=console, disable=hidden):
            pass


def _read(file: Path, size: int) -> np.ndarray:
    """One image, uint8 ``[3, H, W]``."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode[0] in "IF":
                raise ValueError("more than 8 bits a pixel")
            rgb = _upright(image).convert("RGB")
    except Exception as error:  # a damaged file raises whatever its decoder stumbles over
        raise ValueError(f"{file} must be an image of 8 bits a channel: {error}") from error
    return np.asarray(_resized(rgb, size) if size else rgb).transpose(2, 0, 1)


def _upright(image: Image) -> Image:
    """As viewers show it; as it is stored where its EXIF data are damaged."""
    from PIL.Image import Transpose

    image.load()  # TIFF files are turned by this
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # of any kind: what cameras and programs write there is not always EXIF
        return image
    turns = {
        **{2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM},
        **{5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90},
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _resized(image: Image, size: int) -> Image:
    from torchvision.transforms.v2 import functional

    return functional.center_crop(functional.resize(image, [size]), [size])


def _pixels(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[2]} pixels"
