"""The neurons that come with the library, each declared once. Adding one is a file, an import here, and a row in the
docs: everything else reads this table."""

from ..define import Neuron
from .alif import ALIF
from .cuba_lif import CubaLIF
from .integer_lif import IntegerLIF
from .integrate_and_fire import IF
from .lif import LIF
from .llif import LLIF
from .slif import SLIF

__all__ = ["ALIF", "IF", "LIF", "LLIF", "NEURONS", "SLIF", "CubaLIF", "IntegerLIF"]

NEURONS: dict[str, type[Neuron]] = {
    "lif": LIF,
    "llif": LLIF,
    "slif": SLIF,
    "if_": IF,
    "alif": ALIF,
    "cuba_lif": CubaLIF,
    "integer_lif": IntegerLIF,
}
