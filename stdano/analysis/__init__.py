"""What neurons and networks do, in numbers: functions that compute and return plain results. stdano.pictures draws
them."""

from .dynamics import Dynamics, decay_range, dynamics, layer_dynamics
from .gradient_share import GradientShare, gradient_share, jacobian, lif_jacobian, network_shares, reach
from .inputs import layer_inputs
from .share_study import Shift, share_study
from .statistics import Interval, interval

__all__ = [
    "Dynamics",
    "GradientShare",
    "Interval",
    "Shift",
    "decay_range",
    "dynamics",
    "gradient_share",
    "interval",
    "jacobian",
    "layer_dynamics",
    "layer_inputs",
    "lif_jacobian",
    "network_shares",
    "reach",
    "share_study",
]
