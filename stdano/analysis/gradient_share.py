"""How much of the gradient of a neuron's input each time step gets (appendices B to D of the paper).

With spikes s and inputs x, J[t, i] = ds[t]/dx[i] is the gradient of the spike of step t with respect to the input of
step i. The paper writes the sum of all J (eq. 16) as a sum of one term G_i a step and calls P = G_i/G the share of the
step (eq. 28). Its terms grow from one summand for the last step to T for the first one, so that G_i must be what step i
gives to all spikes from i on: the column sum ``sum_t J[t, i]``. This is what backpropagation of ``s.sum()`` leaves in
the input, and what is taken here, with all its terms.

What does not hold as printed:

- Eqs. 4, 26, 27 and 51 let i start at 0, where the product is empty and the 1 in front counts twice: i starts at 1, as
  in eq. 22. Eq. 27 leaves out the surrogate of step t, and its terms begin with kappa(V[T]), on which no spike up to T
  depends.
- Eq. 37 loses the factor V[m], and a sign above the threshold x: kappa is 1 - V*(alpha + alpha^2*(V - x)) for V from
  x - 1/alpha to x, and -V*(alpha - alpha^2*(V - x)) up to x + 1/alpha. So kappa is below 0 right above the threshold,
  the logarithm in eq. 39 has no value there, and terms of a sum cancel each other.
- Eq. 33 is G_{i-1} - G_i by eq. 27, not G_i - G_{i-1}; eq. 56 has the sign. Eq. 46 is +V*alpha^2 below the threshold,
  where it says -V*alpha^2. The two wrong signs of appendix C cancel: for V ~ N(0, 1), which it assumes, the mean of
  kappa grows with the threshold (0.636 at 1, 0.658 at 1.1), and the share of early steps with it.
- Appendix C moves the threshold under potentials that stay as they are, appendix D sets kappa to 1. Neither counts the
  gradient through the threshold (dV_th/dx) or the time constant (dtau/dV), which the neurons have unless
  ``detach_adapt`` is set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stdano_kernels import function, surrogate
from stdano_kernels.neurons import LIF
from stdano_kernels.spec import spec_of

from ..rewrite.inherit import spiking_layers
from .dynamics import dynamics
from .inputs import AnyNeuron, check_input, over_time, resolved, watched


@dataclass(frozen=True)
class GradientShare:
    """The share of each time step in the gradient of an input.

    Attributes:
        share: ``sum_n |g_n[t]|`` over that of all steps, for the gradient g of neurons n; T numbers, which add up to 1.
            NaN where there is no gradient at all.
        signed: ``sum_n g_n[t]`` over that of all steps, eq. 28 to the letter. It adds up to 1 as well, but a share may
            be below 0 or above 1, since kappa may be below 0 (eq. 23).
    """

    share: tuple[float, ...]
    signed: tuple[float, ...]

    @property
    def centre(self) -> float:
        """The mean step, ``sum_t t*share[t]``, from 0 to T - 1."""
        return math.fsum(t * p for t, p in enumerate(self.share))

    @property
    def early(self) -> float:
        """The share of the first half of the steps; the middle one of an odd number counts half."""
        half, odd = divmod(len(self.share), 2)
        return math.fsum(self.share[:half]) + 0.5 * odd * self.share[half if odd else 0]

    @property
    def late(self) -> float:
        """The share of the other half."""
        return math.fsum(self.share) - self.early


def gradient_share(neuron: AnyNeuron, x: Tensor, **settings: Any) -> GradientShare:
    """The share of each step in the gradient of ``s.sum()`` with respect to x, by the neuron's own backward pass: the
    sums of the columns of :func:`jacobian`, with their terms of all signs, in one pass.

    Args:
        neuron: a name (``"LIF"``), a declaration, a class of neurons, or a layer, which brings its settings.
        x: input ``[T, ...]``, at least one step and one neuron, on any device; each sequence begins at rest. For a
            layer of a network take what it gets there, by :func:`layer_inputs`.
        settings: arguments of the neuron's function: constants, options, ``surrogate``, ``backend``.

    Raises:
        ValueError, TypeError: an argument is wrong.
    """
    x, spikes = _run(neuron, x, settings)
    return _divided(_sums(_gradient(spikes, x)))


def jacobian(neuron: AnyNeuron, x: Tensor, **settings: Any) -> Tensor:
    """``J[t, i] = ds[t]/dx[i]`` of each neuron, by T backward passes of its kernel: ``[T, T, ...]``, 0 for i > t, in
    x's dtype. The row t is eq. 15. Arguments and errors as :func:`gradient_share`."""
    x, spikes = _run(neuron, x, settings)
    return torch.stack([_gradient(spikes[t], x) for t in range(len(x))])


def lif_jacobian(x: Tensor, **settings: Any) -> Tensor:
    """The same for LIF by the closed form of eq. 22, from the potentials alone::

        J[t, i] = c * sigma(V[t] - V_th) * a^(t-i) * product of kappa(V[j]) for j = i..t-1
        kappa(V) = 1 - Theta - (V - v_reset)*sigma   (hard reset; eq. 23)   or   1 - V_th*sigma   (soft; eq. 25)

    with a = exp(-1/tau) or 1 - 1/tau, c = 1 or 1/tau (``decay_input``), sigma the surrogate's derivative. With
    ``detach_reset`` kappa is 1 - Theta or 1.

    Args:
        x: input ``[T, ...]``.
        settings: arguments of :func:`stdano_kernels.lif`, ``tau`` and ``v_threshold`` as numbers; hard spikes.
    """
    seen = dynamics(LIF, x, **settings)
    shape = x.shape[1:]
    h, a, theta, tau = (seen.values[name].reshape(-1, *shape) for name in ("h", "decay", "threshold", "tau"))
    given: dict[str, Any] = spec_of(LIF).defaults | settings
    slope = surrogate.derivative(given["surrogate"], h - theta, given["alpha"])
    fired = (h >= theta).to(h.dtype)
    inner = torch.zeros_like(slope) if given["detach_reset"] else slope
    r = given["v_reset"]
    kappa = 1 - theta * inner if r is None else 1 - fired - (h - r) * inner
    gain = 1 / tau if given["decay_input"] else torch.ones_like(tau)
    out = h.new_zeros((len(x), *x.shape))
    for t in range(len(x)):
        path = torch.ones_like(h[0])
        for i in range(t, -1, -1):
            out[t, i] = gain[i] * slope[t] * path
            path = path * a[i] * kappa[i - 1]
    return out


def reach(matrix: Tensor) -> float:
    """How many steps the gradient goes back on average: the mean of t - i, weighted by ``|J[t, i]|``.

    Args:
        matrix: ``[T, T, ...]``, as :func:`jacobian` gives it.
    """
    steps = torch.arange(len(matrix), device=matrix.device, dtype=torch.float64)
    weights = matrix.abs().flatten(2).sum(2, dtype=torch.float64)
    return float((weights * (steps[:, None] - steps)).sum() / weights.sum())


def network_shares(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, GradientShare]:
    """The share of each step in the gradient that training sends to the inputs of each spiking layer: ``g_n[t]`` is
    dL/dx_n[t] of a layer's neuron n on a sample. Unlike :func:`gradient_share`, which weighs all spikes of a layer
    alike, it has the weights that the later layers and the loss give them.

    Args:
        model: with spiking layers of stdano or SpikingJelly, in either step mode. It runs in eval mode, so that no
            running statistics move, and from rest; parameters get no ``grad``.
        batches: pairs of what the model takes and labels.
        loss: of the model's output and labels; default :func:`stdano.training.tet_loss` on ``[T, B, classes]``, which
            needs the extra ``app``.

    Returns:
        By name, for each layer that ran. A layer that is called several times counts with the sum over its calls; one
        in step mode "s" must be called once a step.

    Raises:
        ValueError: the model has no spiking layers, or there are no batches.
    """
    loss = loss or _tet_loss()
    layers = spiking_layers(model)
    sums: dict[str, list[Tensor]] = {}
    count = 0
    for x, labels in batches:
        count += 1
        with torch.enable_grad(), watched(model) as seen:
            value = loss(model(x), labels)
            inputs = [call for calls in seen.values() for call in calls]
            gradients = iter(torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True))
        for name, calls in seen.items():
            for g in over_time(layers[name], [next(gradients) for _ in calls]) if calls else ():
                sums.setdefault(name, []).append(_sums(g))
    if not count:
        raise ValueError("batches must hold at least one batch, got none")
    return {name: _divided(torch.stack(parts).sum(0)) for name, parts in sums.items()}


def _tet_loss() -> Callable[[Tensor, Tensor], Tensor]:
    from ..training.loss import tet_loss  # whose package imports what the extra has

    return tet_loss


def _run(neuron: AnyNeuron, x: Tensor, settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The input as a leaf, and the spikes."""
    check_input(x)
    declaration, settings = resolved(neuron, settings)
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return x, function(declaration)(x, **settings)


@torch.enable_grad()
def _gradient(spikes: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(spikes, x, torch.ones_like(spikes), retain_graph=True)[0]


def _sums(gradient: Tensor) -> Tensor:
    """Of magnitudes and of values in each step, ``[2, T]``."""
    g = gradient.flatten(1)
    return torch.stack([g.abs().sum(1, dtype=torch.float64), g.sum(1, dtype=torch.float64)])


def _divided(sums: Tensor) -> GradientShare:
    share, signed = (sums / sums.sum(1, keepdim=True)).tolist()
    return GradientShare(tuple(share), tuple(signed))
