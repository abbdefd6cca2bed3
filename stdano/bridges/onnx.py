"""ONNX: trained networks for inference in other runtimes. Needs the extra ``bridges``."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from stdano_kernels.backends import EXTENSION_ERROR

from ..nodes.base import BaseNode, beside
from ..nodes.link import link_of
from ..nodes.neurons import SPIKINGJELLY_NEURONS, is_spikingjellys, reset_net
from ..nodes.super_neuron import SuperNeuron
from .foreign import is_sinabs, is_snntorchs

#: The key of the file's metadata with what each state rests at, as JSON.
AT_REST = "stdano.at_rest"


def to_onnx(
    model: nn.Module,
    example_input: Tensor | tuple[Tensor, ...],
    file: str | os.PathLike[str],
    *,
    dynamic: Sequence[int] | None = None,
    states: bool = False,
    opset_version: int = 20,
) -> torch.onnx.ONNXProgram:
    """Writes a model to an ONNX file, for inference.

    Each layer of neurons is one ``Scan`` whose body is a time step in standard operators: the file's size does not
    depend on T, and no runtime needs anything of stdano's. What is exported is a copy in eval mode on the CPU; the
    model, its modes and states stay as they are. Gradients and the training mode are not exported. Fused pairs of
    BatchNorm and neuron (:func:`stdano.fuse`) stay so, the norm within the loop. A super neuron becomes the weighted
    sum that it computes.

    Args:
        model: any module that ``torch.export`` takes, with neurons of stdano, your own included. Other neurons must be
            replaced before (:func:`stdano.convert`).
        example_input: a tensor, or a tuple of tensors for several arguments: shapes and dtypes of the inputs.
        file: path to write to. Weights of more than 2 GB lie in a second file beside it.
        dynamic: axes of the inputs whose size is open in the file. None (default): 0 and 1, T and B for
            ``[T, B, ...]``, where the model allows it and the example has a size above 1 there; a warning names those
            with size 1. Axes that are named must be possible.
        states: whether each state of a neuron is an input and an output of the file as well, for input that comes step
            by step or in chunks. By default every call begins at rest, as after :func:`stdano.reset_net`. (A neuron in
            ``step_mode="s"`` that the model calls once a step needs it.)
        opset_version: of ONNX, 18 or more; default 20.

    Returns:
        What ``torch.onnx.export`` returns.

    Inputs are named ``input`` (several ``input0``, ``input1``, ...) and outputs ``output`` likewise. With ``states``
    the state ``v`` of layer ``1`` goes in as ``1.v`` and comes out as ``1.v.next``;
    :func:`stdano.bridges.onnx.initial_states` makes the first.

    How equal results are: ONNX has no fused multiply-add, and runtimes have their own exp and tanh. Potentials differ
    in the last bits, and a spike differs where the potential meets the threshold within that.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        ValueError, TypeError: an argument is wrong, or the model has layers that cannot be exported so.
        RuntimeError: the CPU kernels are missing, or torch cannot export the model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    if not inputs or not all(isinstance(t, Tensor) for t in inputs):
        kinds = ", ".join(type(t).__name__ for t in inputs)
        raise TypeError(f"example_input must be a tensor or a tuple of tensors, got {kinds or 'an empty tuple'}")
    if not isinstance(opset_version, int) or opset_version < 18:
        raise ValueError(f"opset_version must be an integer from 18 on, got {opset_version!r}")
    file = os.fspath(file)
    if not os.path.isdir(os.path.dirname(os.path.abspath(file))):
        raise ValueError(f"file must be in a folder that exists, got {file!r}")
    _check_layers(model, states)
    table = translations()
    shapes = [*map(partial(_open_axes, dynamic), inputs)]
    call = _Call(model, states)
    with torch.no_grad():
        tensors, count = call.example(tuple(t.detach().cpu() for t in inputs))
        if call.forgetful:
            warnings.warn(
                f'each call of the file begins at rest, though layers in step_mode="s" make one time step in it: '
                f"{', '.join(call.forgetful)}; states=True makes their states inputs and outputs",
                stacklevel=2,
            )
        shapes += [dict.fromkeys(range(t.dim()), torch.export.Dim.AUTO) for t in tensors[len(inputs) :]]
        # Exported here, not by torch.onnx, whose own way keeps open what the model has turned out to fix.
        exported = torch.export.export(call, tensors, dynamic_shapes={"tensors": tuple(shapes)}, strict=False)
        program = torch.onnx.export(
            exported,
            dynamo=True,
            input_names=[*_numbered("input", len(inputs)), *call.rests],
            output_names=[*_numbered("output", count), *(f"{name}.next" for name in call.rests)],
            opset_version=opset_version,
            custom_translation_table=table,
            verbose=False,
        )
    assert program is not None
    written = program.model.opset_imports[""]
    if written != opset_version:  # torch goes on with another one
        raise ValueError(
            f"opset_version must be one that torch and onnx can write here, such as {written}, got {opset_version}"
        )
    graph = program.model.graph
    for value in (*graph.inputs, *graph.outputs):
        assert value.shape is not None
        sizes = [str(size) for size in value.shape]  # some stand there as text
        value.shape = type(value.shape)([int(n) if n.isdecimal() else n for n in sizes])
    if states:
        program.model.metadata_props[AT_REST] = json.dumps(call.rests)
    program.save(file)
    return program


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What stdano's operators are in ONNX: the argument ``custom_translation_table`` of ``torch.onnx.export``, where
    that is called directly, in eval mode and within :func:`stdano.stateless`.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        RuntimeError: the CPU kernels are missing, whose operators are translated.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{' and '.join(missing)} must be installed for an export to ONNX: pip install 'stdano[bridges]'"
        )
    if EXTENSION_ERROR is not None:
        raise RuntimeError(f"an export to ONNX needs the CPU kernels, which are not available here: {EXTENSION_ERROR}")
    from .onnx_operators import table  # it imports both

    return table()


def initial_states(session: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The states at rest for the first call of a file that was written with ``states=True``::

        state = initial_states(session, {"input": chunk})
        output, *after = session.run(None, {"input": chunk, **state})
        state = dict(zip(state, after))  # for the next chunk

    Args:
        session: an ``onnxruntime.InferenceSession``.
        inputs: the inputs of that call by name, without states.

    Raises:
        ValueError: the file has no states, or a size that does not follow from the inputs' sizes.
    """
    rests = json.loads(session.get_modelmeta().custom_metadata_map.get(AT_REST, "{}"))
    if not rests:
        raise ValueError("session must be of a file that to_onnx wrote with states=True, this one has no states")
    sizes: dict[Any, int] = {}
    for value in session.get_inputs():
        if value.name in inputs:
            sizes.update(zip(value.shape, inputs[value.name].shape, strict=True))
    states = {}
    for value in session.get_inputs():
        if value.name in rests:
            dtype = np.float64 if value.type == "tensor(double)" else np.float32
            shape = [sizes.get(n, n) for n in value.shape]
            if not all(isinstance(n, int) for n in shape):
                raise ValueError(f"inputs must tell the sizes of state {value.name}, which are {shape}")
            states[value.name] = np.full(shape, rests[value.name], dtype)
    return states


class _Call(nn.Module):
    """A copy of a model in eval mode, for one call, with the states among its inputs and outputs if that is wanted.

    ``rests`` has what each such state rests at, by its name; ``forgetful`` names layers that make one time step a call
    and have no states from call to call.
    """

    def __init__(self, model: nn.Module, states: bool) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu()
        self.states = states
        self.rests: dict[str, Any] = {}
        self.forgetful: list[str] = []
        self._carriers: list[Any] = []  # the neurons whose states these are
        self._given = 0
        for module in self.model.modules():
            if isinstance(module, (BaseNode, SuperNeuron)):
                module.backend = "cpu"  # whose operators are translated; where it is missing, an error says so
        self.eval()

    def example(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], int]:
        """Runs the model, from rest: the inputs with states behind them, and the number of outputs less states."""
        reset_net(self.model)
        steps: Counter[str] = Counter()
        handles = [
            node.register_forward_hook(lambda *_, name=name: steps.update([name]))
            for name, node in self.model.named_modules()
            if isinstance(node, BaseNode) and node.step_mode == "s" and not self.states
        ]
        count = len(_leaves(self.model(*inputs)))
        for handle in handles:
            handle.remove()
        self.forgetful = [name or type(self.model).__name__ for name, calls in steps.items() if calls == 1]
        self._given = len(inputs)
        tensors = list(inputs)
        for name, node in self.model.named_modules() if self.states else ():
            if isinstance(node, BaseNode) and node._state is not None:
                self._carriers.append(node)
                for state, value in zip(node.neuron.states, node._state, strict=True):
                    self.rests[f"{name}.{state}" if name else state] = _rest(node, state, value)
                    tensors.append(value)
        reset_net(self.model)
        return tuple(tensors), count

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        reset_net(self.model)
        given = iter(tensors[self._given :])
        for node in self._carriers:
            node._state = tuple(next(given) for _ in node.neuron.states)
        outputs = _leaves(self.model(*tensors[: self._given]))
        after = [t for node in self._carriers for t in node._state]
        reset_net(self.model)
        return (*outputs, *after)


def _leaves(output: Any) -> list[Tensor]:
    leaves = tree_leaves(output)
    if not leaves or not all(isinstance(t, Tensor) for t in leaves):
        kinds = ", ".join(sorted({type(t).__name__ for t in leaves})) or "nothing"
        raise TypeError(f"model must return tensors, or tuples, lists and dicts of them, got {kinds}")
    return leaves


def _rest(node: BaseNode, state: str, value: Tensor) -> Any:
    """What a state, which has the shape of a value, rests at: a number, or lists that broadcast to it."""
    rest = node._rest_of(state)
    return beside(value, rest).tolist() if isinstance(rest, Tensor) else float(rest)


def _open_axes(dynamic: Sequence[int] | None, t: Tensor) -> dict[int, Any]:
    """What torch.export is told of an input's axes."""
    if dynamic is None:
        axes = range(min(2, t.dim()))
        single = [axis for axis in axes if t.shape[axis] == 1]
        if single:
            warnings.warn(
                f"example_input has size 1 in axes {single}, which stays so in the file; give an example with 2 or "
                "more, or name the axes that shall be open by dynamic",
                stacklevel=3,
            )
        return dict.fromkeys(axes, torch.export.Dim.AUTO)
    if not isinstance(dynamic, Sequence):
        raise TypeError(f"dynamic must be a sequence of axes, such as (0, 1), got {dynamic!r}")
    for axis in dynamic:
        if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < t.dim():
            raise ValueError(f"dynamic must be axes of the inputs, from 0 and below {t.dim()}, got {axis!r}")
        if t.shape[axis] == 1:
            raise ValueError(f"example_input must have size 2 or more in its dynamic axis {axis}, got 1")
    return dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC)


def _check_layers(model: nn.Module, states: bool) -> None:
    for name, module in model.named_modules():
        if is_spikingjellys(module, *SPIKINGJELLY_NEURONS):
            raise ValueError(
                f"model must have stdano's neurons, but {name or 'it'} is a {type(module).__name__} of SpikingJelly; "
                "stdano.convert replaces it"
            )
        if is_spikingjellys(module, "MemoryModule") and not is_spikingjellys(module, "Dropout", "Dropout2d"):
            raise ValueError(
                f"model must have no states but those of stdano's neurons, but {name or 'it'} is a "
                f"{type(module).__name__} of SpikingJelly, which keeps one"
            )
        if is_snntorchs(module) or is_sinabs(module):
            library = "sinabs" if is_sinabs(module) else "snnTorch"
            raise ValueError(
                f"model must have stdano's neurons, but {name or 'it'} is a {type(module).__name__} of {library}; "
                f"stdano.from_{library.lower()} replaces it"
            )
        if link_of(module) is not None and getattr(module, "running_mean", module) is None:
            raise ValueError(
                f"model must have norms with running statistics where they are fused with a neuron, but {name} has "
                "none; stdano.unfuse(model) takes the two apart"
            )
        if states and isinstance(module, SuperNeuron):
            raise ValueError(
                f"states must be False for a model with super neurons, which carry none, but {name or 'it'} is one; "
                "stdano.convert(model, {'SuperNeuron': lambda layer: layer.node()}) puts its choice in its place"
            )


def _numbered(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}{k}" for k in range(count)]
