"""Training: losses, the loop, checkpoints, reports. Needs the extra ``app``."""

from .evaluation import Evaluation
from .guard import Diverged, Interrupted
from .loss import predict, tet_loss
from .train import Result, evaluate, open_run, resume, train

__all__ = [
    "Diverged",
    "Evaluation",
    "Interrupted",
    "Result",
    "evaluate",
    "open_run",
    "predict",
    "resume",
    "tet_loss",
    "train",
]
