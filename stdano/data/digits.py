"""scikit-learn's handwritten digits: 1797 real images of 8 x 8 pixels, shipped with scikit-learn."""

from __future__ import annotations

import numpy as np

from ..settings import DataSettings
from .images import channel_statistics
from .source import DataSource, Samples

_LARGEST = 512


def load_digits(settings: DataSettings) -> DataSource:
    """The digits, 80 % for training (1437 images) and 20 % for the test (360), the same share of every digit.

    The split does not depend on any seed, so that runs with different seeds are measured on the same images. Pixels
    are 0 to 240 in steps of 15; with ``size`` they are repeated (nearest neighbour), by default there are 8 x 8.

    Raises:
        ValueError: ``size`` is above 512: all images are kept in memory.
        ModuleNotFoundError: scikit-learn is not installed (``pip install 'stdano[app]'``).
    """
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    source = load()
    if settings.size > _LARGEST:
        memory = f"{len(source.target) * settings.size**2 / 2**30:.0f} GiB"
        raise ValueError(f"size must be at most {_LARGEST} for digits, got {settings.size}: they would take {memory}")
    images, labels = (source.images * 15).astype(np.uint8)[:, None], source.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    if settings.size:
        nearest = np.arange(settings.size) * images.shape[-1] // settings.size
        images = images[:, :, nearest[:, None], nearest]
    mean, std = channel_statistics(images[train])
    return DataSource(
        "digits",
        Samples(images[train], labels[train]),
        Samples(images[test], labels[test]),
        tuple(map(str, source.target_names)),
        mean,
        std,
    )
