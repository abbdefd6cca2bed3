"""Presets that run on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..settings import SearchSettings, TrainSettings, replace
from .preset import Preset


def own_presets() -> Iterator[Preset]:
    # One thread: the network is small, and two that wait for each other beside other programs take ten times as long.
    small: dict[str, Any] = {"model": "vgg-small", "T": 4, "epochs": 15, "batch_size": 64, "lr": 0.1, "crop": 1}
    digits = {**small, "data": "digits", "threads": 1}
    # A search makes some hundred steps, in which a learning rate like the paper's would hardly move alpha.
    fast = {"alpha_lr": 0.02}
    yield _own("digits", "handwritten digits, small VGG: a minute on one core", digits, fast)
    events = {**small, "data": "digits-events", "threads": 1}
    yield _own("digits-events", "the digits before a simulated event camera, small VGG", events, fast)
    nmnist = {**small, "data": "nmnist", "T": 8, "crop": 2, "batch_size": 32}
    yield _own("nmnist", "N-MNIST, small VGG", nmnist, fast)
    cifar = {**small, "data": "cifar10", "epochs": 30, "crop": 4, "flip": True}
    yield _own("cifar10-small", "CIFAR-10, or with --data folder:PATH other images of its size; small VGG", cifar, fast)


def _own(name: str, title: str, values: dict[str, Any], search: dict[str, Any]) -> Preset:
    searched = replace(SearchSettings(), **{**values, **search, "neurons": ""})
    return Preset(name, title, replace(TrainSettings(), **values), searched)
