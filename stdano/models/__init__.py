"""Spiking networks."""

from .small import SmallConvNet

__all__ = ["SmallConvNet"]
