"""A report on runs: one HTML page with settings, curves, architectures, activity, gradients, dynamics and cost."""

from .report import report

__all__ = ["report"]
