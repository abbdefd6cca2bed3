"""Between stdano's neurons and the nodes of NIR, whose equations are continuous in time.

A reader of NIR takes Euler steps of length dt. Of ``tau dv/dt = (v_leak - v) + r*I`` that makes
``v[t] = v[t-1] + dt/tau*(v_leak - v[t-1]) + r*dt/tau*x[t]``: a linear decay with ``tau/dt`` time steps. An exponential
decay is the linear one of ``1/(1 - exp(-1/tau))`` time steps, and is written so.
"""

from __future__ import annotations

import warnings
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from ..nodes.base import BaseNode
from ..nodes.neurons import NEURONS, CubaLIFNode, IFNode, LIFNode, ParametricLIFNode
from .foreign import refuse

#: Under this name a node's metadata have the settings of stdano's neuron: see :func:`stdano.to_nir`.
METADATA = "stdano"
_CONSTANTS = ("tau", "tau_syn", "v_threshold", "v_reset")
_OTHERS = ("decay", "decay_input", "surrogate_function", "alpha", "detach_reset")
_KINDS = (LIFNode, ParametricLIFNode, IFNode, CubaLIFNode)


def node_of(nir: Any, name: str, layer: Any, shape: tuple[int, ...], dt: float, strict: bool) -> Any:
    """The node of a neuron.

    Args:
        nir: the package.
        name, layer: the neuron and how the model calls it.
        shape: of the neurons of one sample, ``[C, H, W]`` or ``[N]``.
        dt, strict: see :func:`stdano.to_nir`.
    """
    if type(layer) not in _KINDS or "forward" in vars(layer):
        refuse(name, layer, "NIR has IF, LIF and CubaLIF; a reader would compute something else")
    if layer.spike != "hard":
        refuse(name, layer, "its spikes are soft, for which NIR has no node")
    if strict and layer.v_reset is None:
        refuse(
            name,
            layer,
            "NIR's nodes reset to v_reset, which a reader would do instead of the soft reset. strict=False writes it "
            "as metadata, which stdano.from_nir reads and others ignore",
        )
    node = _written(nir, name, layer, shape, dt)
    node.metadata[METADATA] = _metadata(layer)
    return node


def _written(nir: Any, name: str, layer: Any, shape: tuple[int, ...], dt: float) -> Any:
    """The node's standard fields."""

    def full(value: Any) -> np.ndarray:
        return np.array(np.broadcast_to(_along_channels(_array(value), len(shape)), shape))

    reset = full(0.0 if layer.v_reset is None else layer.v_reset)
    threshold = full(layer.v_threshold)
    tau = None if isinstance(layer, IFNode) else _linear(layer, layer.tau)
    if tau is None or np.isinf(tau).all():  # of a tensor none is
        if isinstance(layer, CubaLIFNode):
            refuse(name, layer, "tau is infinite, for which NIR has no node with a current")
        return nir.IF(r=full(1 / dt), v_threshold=threshold, v_reset=reset)
    r = full(tau / _array(layer.tau) if layer.decay_input else tau)
    fields = dict(r=r, v_leak=reset.copy(), v_threshold=threshold, v_reset=reset)
    if isinstance(layer, CubaLIFNode):
        synaptic = full(_linear(layer, layer.tau_syn))
        return nir.CubaLIF(tau_mem=full(tau) * dt, tau_syn=synaptic * dt, w_in=synaptic, **fields)
    return nir.LIF(tau=full(tau) * dt, **fields)


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu().double() if isinstance(value, Tensor) else value, dtype=np.float64)


def _along_channels(value: np.ndarray, dimensions: int) -> np.ndarray:
    """A constant ``[C]`` beside the dimensions behind the channels."""
    return value.reshape(-1, *[1] * (dimensions - 1)) if value.ndim == 1 else value


def _linear(layer: Any, tau: Any) -> np.ndarray:
    """The time constant whose linear decay is a layer's decay, in time steps."""
    value = _array(tau)
    with np.errstate(divide="ignore"):
        return value if layer.decay == "linear" else -1 / np.expm1(-1 / value)


def _metadata(layer: Any) -> dict[str, Any]:
    kind = next(kind for kind, cls in NEURONS.items() if isinstance(layer, cls))
    out: dict[str, Any] = {"neuron": kind, "reset": "soft" if layer.v_reset is None else "hard"}
    for name in (*_CONSTANTS, *_OTHERS):
        value = getattr(layer, name, None)
        if value is not None and name in _CONSTANTS:
            array = _array(value)
            out[name] = array if array.ndim else float(array)  # nir.write compresses arrays, which takes dimensions
        elif value is not None:
            out[name] = value
    return out


def neuron_of(nir: Any, name: str, node: Any, dt: float, settings: dict[str, Any]) -> BaseNode:
    """The neuron of a node; with stdano's metadata exactly the one that was written, unless the node's fields were
    changed since.

    Raises:
        ValueError: stdano has none that does the same, or the metadata cannot be read.
    """
    metadata = (node.metadata or {}).get(METADATA)
    if metadata is not None:
        layer = _from_metadata(name, metadata)
        again = _written(nir, name, layer, np.shape(node.v_threshold), dt)
        if type(again) is type(node) and all(_close(getattr(again, f), getattr(node, f)) for f in _fields(node)):
            return _with(layer, settings)
        warnings.warn(
            f"node {name!r}: its fields are not those of its metadata (for dt = {dt:g}); the fields count",
            RuntimeWarning,
            stacklevel=2,
        )
    readers = {"IF": _integrator, "LIF": _leaky, "CubaLIF": _current_based}
    return _with(readers[type(node).__name__](name, node, dt), settings)


def _fields(node: Any) -> list[str]:
    return [
        f for f in ("tau", "tau_mem", "tau_syn", "r", "w_in", "v_leak", "v_threshold", "v_reset") if hasattr(node, f)
    ]


def _from_metadata(name: str, metadata: Any) -> BaseNode:
    try:
        given = dict(metadata)
        kind, reset = given.pop("neuron"), given.pop("reset")
        values = {k: _constant(v) if k in _CONSTANTS else getattr(v, "item", lambda v=v: v)() for k, v in given.items()}
        return NEURONS[kind](**values, **({"v_reset": None} if reset == "soft" else {}))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"node {name!r} has metadata of stdano that cannot be read: {error}") from error


def _with(layer: BaseNode, settings: dict[str, Any]) -> BaseNode:
    """The same neuron with other settings."""
    if not settings:
        return layer
    own = {name: getattr(layer, name) for name in layer._arguments.defaults}
    if "surrogate_function" in settings and "alpha" not in settings:
        del own["alpha"]
    return type(layer)(**{**own, **settings})


def _close(one: Any, other: Any) -> bool:
    return np.shape(one) == np.shape(other) and bool(np.allclose(one, other, rtol=1e-5, atol=1e-12))


def _constant(value: Any) -> float | Tensor:
    """A number where all neurons have the same, ``[C]`` where all of a channel have, else one a neuron."""
    array = np.asarray(_numpy(value), dtype=np.float64)
    if array.size and (array == array.flat[0]).all():
        return float(array.flat[0])
    if array.ndim > 1:
        channels = array.reshape(len(array), -1)
        array = channels[:, 0] if (channels == channels[:, :1]).all() else array
    return torch.tensor(array, dtype=torch.get_default_dtype())


def _numpy(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def _wrong(name: str, node: Any, reason: str) -> NoReturn:
    raise ValueError(f"node {name!r} ({type(node).__name__}) cannot be read: {reason}")


def _values(name: str, node: Any) -> dict[str, np.ndarray]:
    """The node's fields as float64 arrays, checked."""
    values = {f: np.asarray(_numpy(getattr(node, f)), dtype=np.float64) for f in _fields(node)}
    for f, value in values.items():
        if not np.isfinite(value).all():
            _wrong(name, node, f"{f} must be finite")
    leak = values.pop("v_leak", None)
    if leak is not None and not np.allclose(leak, values["v_reset"], rtol=1e-6, atol=1e-9):
        _wrong(name, node, "v_leak must equal v_reset: stdano's neurons leak to the potential that they reset to")
    return values


def _scaled(name: str, node: Any, values: dict[str, np.ndarray], gain: np.ndarray) -> dict[str, Any]:
    """Threshold and reset in units in which the input counts as it is; the same spikes."""
    if not (gain > 0).all():
        _wrong(name, node, "the input must be multiplied by a number above 0")
    gain = np.ones_like(gain) if np.allclose(gain, 1.0, rtol=1e-6) else gain
    return {k: _constant(values[k] / gain) for k in ("v_threshold", "v_reset")}


def _integrator(name: str, node: Any, dt: float) -> BaseNode:
    values = _values(name, node)
    return IFNode(**_scaled(name, node, values, values["r"] * dt))


def _steps(name: str, node: Any, tau: np.ndarray, dt: float) -> np.ndarray:
    """A time constant in time steps; whole ones as such, which a division of decimal fractions misses."""
    steps = tau / dt
    steps = np.where(np.isclose(steps, np.round(steps), rtol=1e-12, atol=0), np.round(steps), steps)
    if not (steps > 1).all():
        _wrong(name, node, f"time constants must be above dt = {dt:g}, got {tau.min():g}")
    return steps


def _leaky(name: str, node: Any, dt: float) -> BaseNode:
    values = _values(name, node)
    tau = _steps(name, node, values["tau"], dt)
    by_tau = np.allclose(values["r"], 1.0, rtol=1e-6)
    gain = np.ones_like(tau) if by_tau else values["r"] / tau
    fitted = _scaled(name, node, values, gain)
    return LIFNode(tau=_constant(tau), decay="linear", decay_input=bool(by_tau), **fitted)


def _current_based(name: str, node: Any, dt: float) -> BaseNode:
    values = _values(name, node)
    tau, tau_syn = (_steps(name, node, values[f], dt) for f in ("tau_mem", "tau_syn"))
    into_current = values["w_in"] / tau_syn
    by_tau = np.allclose(values["r"], 1.0, rtol=1e-6)
    gain = into_current * (np.ones_like(tau) if by_tau else values["r"] / tau)
    return CubaLIFNode(
        tau=_constant(tau),
        tau_syn=_constant(tau_syn),
        decay="linear",
        decay_input=bool(by_tau),
        **_scaled(name, node, values, gain),
    )
