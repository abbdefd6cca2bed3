"""What a network does and costs, and what the paper says of it: functions that compute and return plain dataclasses.
Pictures of them are in :mod:`stdano.pictures`."""

from . import published
from .activity import Activity, LayerActivity, activity
from .cost import Accesses, Cost, Energy, NeuronCost, Picojoules, SynapseCost, compare, cost
from .operations import Update

__all__ = [
    "Accesses",
    "Activity",
    "Cost",
    "Energy",
    "LayerActivity",
    "NeuronCost",
    "Picojoules",
    "SynapseCost",
    "Update",
    "activity",
    "compare",
    "cost",
    "published",
]
