"""From SpikingJelly's surrogate objects to the surrogates that the kernels know."""

from __future__ import annotations

from stdano_kernels.settings import choice
from stdano_kernels.surrogate import SURROGATES

# SpikingJelly's class -> our name, with alpha meaning the same.
SPIKINGJELLY_SURROGATES = {
    "PiecewiseQuadratic": "triangle",
    "Rect": "rectangle",
    "Sigmoid": "sigmoid",
    "ATan": "atan",
    "PiecewiseExp": "piecewise_exp",
    "SuperSpike": "fast_sigmoid",
}


def resolve_surrogate(surrogate_function: object, alpha: float | None) -> tuple[str, float]:
    """Name and alpha of a surrogate.

    Args:
        surrogate_function: a name from :data:`stdano_kernels.SURROGATES`, or a SpikingJelly surrogate object of the
            same kind, which brings its own alpha.
        alpha: sharpness; None means 1, or the object's.

    Raises:
        ValueError: an unknown name or kind, or one whose meaning differs.
    """
    if isinstance(surrogate_function, str):
        choice("surrogate_function", surrogate_function, SURROGATES)
        return surrogate_function, 1.0 if alpha is None else alpha
    kind = type(surrogate_function).__name__
    if kind not in SPIKINGJELLY_SURROGATES:
        raise ValueError(
            f"surrogate_function must be one of {', '.join(SURROGATES)} or a SpikingJelly surrogate of type "
            f"{', '.join(SPIKINGJELLY_SURROGATES)}; got {surrogate_function!r}"
        )
    own = float(getattr(surrogate_function, "alpha", 1.0))
    if alpha is not None and alpha != own:
        raise ValueError(f"alpha={alpha} contradicts surrogate_function {kind}(alpha={own}); leave alpha out")
    if kind == "SuperSpike" and own != 1.0:
        raise ValueError(
            f"surrogate_function SuperSpike must have alpha=1, got {own}: SpikingJelly's alpha scales the gradient, "
            'that of "fast_sigmoid" sharpens it'
        )
    if not getattr(surrogate_function, "spiking", True):
        raise ValueError(f'surrogate_function {kind}(spiking=False) must be written as {kind}() with spike="soft"')
    return SPIKINGJELLY_SURROGATES[kind], own
