"""What neurons and networks do, what they cost, and what the paper says of it: functions that compute and return plain
dataclasses. Pictures of them are in :mod:`stdano.pictures`."""

from . import published
from .activity import Activity, LayerActivity, activity
from .cost import Accesses, Cost, Energy, NeuronCost, Picojoules, SynapseCost, compare, cost
from .dynamics import Dynamics, decay_range, dynamics, layer_dynamics
from .gradient_share import GradientShare, gradient_share, jacobian, lif_jacobian, network_shares, reach
from .inputs import layer_inputs
from .operations import Update
from .share_study import Shift, share_study
from .statistics import Interval, interval

__all__ = [
    "Accesses",
    "Activity",
    "Cost",
    "Dynamics",
    "Energy",
    "GradientShare",
    "Interval",
    "LayerActivity",
    "NeuronCost",
    "Picojoules",
    "Shift",
    "SynapseCost",
    "Update",
    "activity",
    "compare",
    "cost",
    "decay_range",
    "dynamics",
    "gradient_share",
    "interval",
    "jacobian",
    "layer_dynamics",
    "layer_inputs",
    "lif_jacobian",
    "network_shares",
    "published",
    "reach",
    "share_study",
]
