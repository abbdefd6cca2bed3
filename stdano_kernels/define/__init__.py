"""A neuron is declared once, in Python; its adjoint and its kernels follow. Needs neither torch nor a compiler."""

from .graph import DeclarationError
from .neuron import Constant, Neuron, Option, State
from .operations import abs, detach, exp, log, maximum, minimum, relu, sigmoid, spike, sqrt, tanh, where

__all__ = [
    "Constant",
    "DeclarationError",
    "Neuron",
    "Option",
    "State",
    "abs",
    "detach",
    "exp",
    "log",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "spike",
    "sqrt",
    "tanh",
    "where",
]
