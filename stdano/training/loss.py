"""Losses on the logits of every time step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def tet_loss(
    logits: Tensor,  # [T, B, classes]
    target: Tensor,  # [B]
    lam: float = 0.05,
    v_threshold: float = 1.0,
) -> Tensor:
    """Temporal efficient training (eq. 59 of the paper): the loss of every step, not that of the sum over steps.

    The mean over T of ``(1 - lam)*CE(O[t], y) + lam*MSE(O[t], v_threshold)``.

    Args:
        logits: ``[T, B, classes]``.
        target: classes ``[B]``, int64.
        lam: weight of the regularising term that draws all logits to ``v_threshold``; default 0.05, the paper's.
        v_threshold: what that term draws to; default 1.

    Raises:
        ValueError: the shapes do not fit.
    """
    if logits.dim() != 3 or target.shape != logits.shape[1:2]:
        raise ValueError(
            f"logits must have shape [T, B, classes] and target [B], got {list(logits.shape)} and {list(target.shape)}"
        )
    steps = logits.shape[0]
    entropy = functional.cross_entropy(logits.flatten(0, 1), target.repeat(steps))
    error = functional.mse_loss(logits, torch.full_like(logits, v_threshold))
    return (1 - lam) * entropy + lam * error


def predict(logits: Tensor) -> Tensor:  # [T, B, classes] -> [B]
    """The predicted class: the largest sum of logits over time."""
    return logits.sum(0).argmax(-1)
