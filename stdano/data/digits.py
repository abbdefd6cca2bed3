"""scikit-learn's handwritten digits: 1797 real images of 8 x 8 pixels, shipped with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageData:
    """Images and labels, split into training and test.

    ``train_images`` and ``test_images`` are float32 ``[N, C, H, W]``, ``train_labels`` and ``test_labels`` int64
    ``[N]`` with values from 0 to ``num_classes - 1``.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int


def load_digits(split_seed: int = 0) -> ImageData:
    """The digits, 80 % for training (1437 images) and 20 % for the test (360), the same share of every digit.

    Pixels (0 to 16 in the source) are scaled to [0, 1], then normalised with mean and standard deviation of the
    training images.

    Args:
        split_seed: picks the split. It is not the seed of the training, so that runs with different seeds are
            measured on the same images.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed (``pip install 'stdano[app]'``).
    """
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    source = load()
    images = torch.tensor(source.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(source.target, dtype=torch.int64)
    train, test = train_test_split(range(len(labels)), test_size=0.2, stratify=labels.numpy(), random_state=split_seed)
    mean, std = images[train].mean(), images[train].std()
    images = (images - mean) / std
    return ImageData(images[train], labels[train], images[test], labels[test], num_classes=10)
