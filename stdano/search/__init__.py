"""Layer-wise neuron search (section 4.3 of the paper). Needs the extra ``app``."""

from .architect import Architect
from .architecture import Architecture
from .loop import resume, search
from .supernet import to_super

__all__ = ["Architect", "Architecture", "resume", "search", "to_super"]
