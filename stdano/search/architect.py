"""How alpha moves: the gradient of the validation loss, at the current weights or at those after one more step.

As in DARTS (Liu et al., 2018), with L_train and L_val the losses on two batches and w' the weights after one step of
SGD on L_train, which depends on alpha::

    first order:   d L_val(w, alpha) / d alpha
    second order:  d L_val(w', alpha) / d alpha - lr * d2 L_train(w, alpha) / (d alpha d w) * d L_val(w', alpha) / d w'

The product with the mixed derivative is a difference of two gradients, of L_train at w + h and at w - h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ..nodes.super_neuron import SuperNeuron
from ..rewrite.convert import execution_order

Loss = Callable[[], Tensor]
Reduce = Callable[[list[Tensor]], None]

SHIFT = 0.01  # length of h: DARTS' value


def super_neurons(model: nn.Module) -> dict[str, SuperNeuron]:
    """The super neurons of a model by name, in order of execution: as :func:`stdano.search.to_super` saw it, or as
    ``torch.fx`` traces it; in order of definition where neither knows."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, SuperNeuron)}
    positions = [neuron.position for neuron in found.values() if neuron.position is not None]
    if len(set(positions)) == len(found):
        return dict(sorted(found.items(), key=lambda item: item[1].position or 0))
    try:
        names = [name for name, _ in execution_order(model)]
    except ValueError:
        return found
    return {name: found[name] for name in names if name in found}


def alphas(model: nn.Module) -> dict[str, nn.Parameter]:
    """The architecture parameters by the names of their super neurons, ordered as :func:`super_neurons`."""
    return {name: neuron.alpha for name, neuron in super_neurons(model).items()}


def weights(model: nn.Module) -> list[nn.Parameter]:
    """All parameters that are trained, but for the architecture parameters."""
    own = {id(m.alpha) for m in model.modules() if isinstance(m, SuperNeuron)}
    return [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in own]


def first_order(
    val_loss: Loss, alphas: Sequence[Tensor], weights: Sequence[Tensor] = (), *, scale: float = 1.0
) -> tuple[Tensor, list[Tensor]]:
    """The gradient of the validation loss with respect to alpha alone.

    Args:
        val_loss: runs the model on a batch and returns the loss.
        alphas: parameters ``[K]``; they need not require grad outside.
        weights: do not require grad meanwhile, which saves memory and time. No ``.grad`` is touched.
        scale: the loss is multiplied by it before its gradient is taken, for half precision.

    Returns:
        The loss, detached, and a gradient for each alpha.
    """
    return _differentiate(val_loss, alphas, weights, scale)


def second_order(
    val_loss: Loss,
    train_loss: Loss,
    alphas: Sequence[Tensor],
    optimiser: torch.optim.Optimizer,
    *,
    reduce: Reduce | None = None,
    shift: float = SHIFT,
    scale: float = 1.0,
) -> tuple[Tensor, list[Tensor]]:
    """The gradient with respect to alpha of the validation loss after one more step of SGD on the training loss.

    Four passes: L_train at w, L_val at w', L_train at w + h and w - h, where h has the direction of lr * dL_val/dw'.
    The weights have their old bits afterwards, also after an exception. All passes see the random numbers that the
    step itself will see: two dropout masks would differ by more than h does. Buffers are the caller's to restore, as
    :meth:`Architect.step` does.

    Args:
        val_loss, train_loss: run the model on a batch each and return the loss.
        alphas: parameters ``[K]``; they need not require grad outside.
        optimiser: ``torch.optim.SGD`` that will make the step; its learning rate, momentum and weight decay count,
            for each group its own.
        reduce: averages a list of gradients over processes, in place, so that all of them make the same step.
        shift: length of h over all weights together.
        scale: as for :func:`first_order`.

    Returns:
        L_val at w', detached, and a gradient for each alpha, averaged.

    Raises:
        ValueError: the optimiser is another than plain SGD.
    """
    alphas, steps, average = list(alphas), _steps(optimiser), reduce or _keep
    weights = [step.weight for step in steps]
    devices = sorted({w.device.index for w in weights if w.device.type == "cuda"})

    def differentiate(loss: Loss, of: list[Tensor], others: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        with torch.random.fork_rng(devices):
            return _differentiate(loss, of, others, scale)

    with kept(weights) as before:
        _, gradients = differentiate(train_loss, weights, alphas)
        average(gradients)
        for step, gradient in zip(steps, gradients, strict=True):
            step.make(gradient)
        loss, gradients = differentiate(val_loss, [*alphas, *weights], [])
        average(gradients)
        result, direction = gradients[: len(alphas)], gradients[len(alphas) :]
        for step, gradient in zip(steps, direction, strict=True):
            gradient *= step.lr
        # Numbers of the device, for which nobody waits. Without a direction both ends are the same, and add nothing.
        length = get_total_norm(direction).double()
        factor = torch.where(length > 0, shift / length, 0.0)
        ends = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for weight, value, gradient in zip(weights, before, direction, strict=True):
                    torch.addcmul(value, gradient, factor, value=sign, out=weight)
            ends.append(differentiate(train_loss, alphas, weights)[1])
    average([*ends[0], *ends[1]])
    for gradient, plus, minus in zip(result, *ends, strict=True):
        gradient -= (plus - minus) * (length / (2 * shift))
    return loss, result


class Architect:
    """Moves alpha by Adam with betas (0.5, 0.999).

    Args:
        model: has super neurons, see :func:`stdano.search.to_super`.
        lr: learning rate of alpha; default 3e-4.
        weight_decay: of alpha; default 1e-4.
        order: 1: the gradient at the current weights; 2: at those after one more step of SGD.

    Raises:
        ValueError: the model has no super neurons, or the order is another.
    """

    model: nn.Module

    def __init__(self, model: nn.Module, lr: float = 3e-4, weight_decay: float = 1e-4, order: int = 1) -> None:
        if order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {order!r}")
        self.model, self.order = model, order
        self.alphas: list[nn.Parameter] = list(alphas(model).values())
        if not self.alphas:
            raise ValueError(f"model must have super neurons, {type(model).__name__} has none")
        self.optimiser: torch.optim.Adam = torch.optim.Adam(
            self.alphas, lr=lr, betas=(0.5, 0.999), weight_decay=weight_decay
        )

    def step(
        self,
        val_loss: Loss,
        train_loss: Loss | None = None,
        optimiser: torch.optim.Optimizer | None = None,
        reduce: Reduce | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """Moves alpha by one step and nothing else: weights and buffers, such as the running statistics of BatchNorm
        and of super neurons, are as before, and no ``.grad`` is touched.

        Args:
            val_loss: runs the model on a batch of the half for alpha and returns the loss.
            train_loss: the same on the batch of the next step of the weights; needed for the second order alone.
            optimiser: SGD of the weights; for the second order alone.
            reduce: averages a list of gradients over processes, in place; default: this is the only one.
            scale: of the loss, in mixed precision with float16; a step whose gradient is then not finite is left out.

        Returns:
            The validation loss, detached; with the second order that at the weights after the step.

        Raises:
            ValueError: the second order lacks an argument, or the optimiser is another than plain SGD.
        """
        if self.order == 2 and (train_loss is None or optimiser is None):
            raise ValueError("train_loss and optimiser must be given for order 2")
        with kept(list(self.model.buffers())):
            if self.order == 1 or train_loss is None or optimiser is None:
                loss, gradients = first_order(val_loss, self.alphas, weights(self.model), scale=scale)
                (reduce or _keep)(gradients)
            else:
                loss, gradients = second_order(val_loss, train_loss, self.alphas, optimiser, reduce=reduce, scale=scale)
        if scale == 1 or bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all()):
            for alpha, gradient in zip(self.alphas, gradients, strict=True):
                alpha.grad = gradient
            self.optimiser.step()
            self.optimiser.zero_grad()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Adam's state; alpha itself is part of the model's."""
        return self.optimiser.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what :meth:`state_dict` gave."""
        self.optimiser.load_state_dict(state)


@dataclass(frozen=True)
class _Step:
    """What SGD would do to a weight."""

    weight: Tensor
    lr: float
    momentum: float
    weight_decay: float
    buffer: Tensor | None

    @torch.no_grad()
    def make(self, gradient: Tensor) -> None:
        change = gradient.add(self.weight, alpha=self.weight_decay)
        if self.buffer is not None:
            change.add_(self.buffer, alpha=self.momentum)
        self.weight.sub_(change, alpha=self.lr)


def _steps(optimiser: torch.optim.Optimizer) -> list[_Step]:
    groups = optimiser.param_groups
    more = [name for name in ("dampening", "nesterov", "maximize") if any(group.get(name) for group in groups)]
    if not isinstance(optimiser, torch.optim.SGD) or more:
        raise ValueError(
            "optimiser must be torch.optim.SGD without dampening, nesterov and maximize, "
            f"got {type(optimiser).__name__}{' with ' if more else ''}{', '.join(more)}"
        )
    return [
        _Step(
            weight,
            float(group["lr"]),
            group["momentum"],
            group["weight_decay"],
            optimiser.state.get(weight, {}).get("momentum_buffer"),
        )
        for group in groups
        for weight in group["params"]
        if weight.requires_grad
    ]


def _differentiate(
    loss: Loss, of: Sequence[Tensor], others: Sequence[Tensor], scale: float
) -> tuple[Tensor, list[Tensor]]:
    """The loss, and its gradient with respect to some tensors while others do not require grad."""
    before = [(tensor, tensor.requires_grad) for tensor in (*of, *others)]
    try:
        for number, (tensor, _) in enumerate(before):
            tensor.requires_grad_(number < len(of))
        value = loss()
        # The gradient of a layer that does not run is 0.
        gradients = torch.autograd.grad(value * scale, of, allow_unused=True, materialize_grads=True)
        return value.detach(), [gradient / scale for gradient in gradients]  # own memory, which autograd's may share
    finally:
        for tensor, required in before:
            tensor.requires_grad_(required)


@contextmanager
def kept(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Copies of tensors, whose bits they have again at the end."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield before
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


def _keep(tensors: list[Tensor]) -> None:
    """The average over one process."""
