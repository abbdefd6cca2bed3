"""The Triton kernels, compiled as operators would launch them, without a GPU: nothing is run."""

from __future__ import annotations

import inspect
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from _gpu_code import Code
from _sass import read
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stdano_kernels import SURROGATES
from stdano_kernels.define.trace import Variant
from stdano_kernels.functional import kernel_for
from stdano_kernels.neurons import NEURONS
from stdano_kernels.spec import traced
from stdano_kernels.triton import channel_ops, launch, ops
from stdano_kernels.triton.common import CHECKPOINT_STEPS

PAPER = ("lif", "llif", "slif")
LENGTHS = (4, 16, 17)  # T that is done at once, T of whole parts, and T that leaves a rest
CHANNEL_KERNELS = (
    "channel_sums",
    "channel_affine",
    "super_neuron_encode",
    "super_neuron_decode",
    "super_neuron_sums",
    "super_neuron_backward",
)
_TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float64: "*fp64",
    torch.uint8: "*u8",
}


def usual(neuron: str, **settings: Any) -> Variant:
    """A neuron's own reset, with other settings as given."""
    soft = NEURONS[neuron].constants["v_reset"].default is None
    return Variant(**{"reset": "soft" if soft else "zero", **settings})


@contextmanager
def _recorded(warp: int) -> Iterator[list]:
    """Keeps kernels and arguments of launches for a device with such warps, instead of launching them."""
    calls: list = []
    before = launch.run, launch.warp_size
    launch.run = lambda kernel, grid, arguments: calls.append((kernel, arguments))
    launch.warp_size = lambda device: warp
    try:
        yield calls
    finally:
        launch.run, launch.warp_size = before


def _input(dtype: torch.dtype, steps: int, offset: int) -> Tensor:
    return torch.zeros(steps * 64 + offset, dtype=dtype)[offset:].view(steps, 2, 4, 8)


def recorded_calls(
    neuron: str,
    variant: Variant | None = None,
    dtype: torch.dtype = torch.float32,
    steps: int = 9,
    kinds: Sequence[str] = ("number",),
    affine: bool = False,
    outputs: bool = False,
    offset: int = 0,
    warp: int = 32,
) -> list:
    """The launches of a train step on a small tensor of four channels.

    Args:
        kinds: what the constants are, in turn: a number, or a tensor of one, one a channel, or one a neuron.
        outputs: with an initial state, and gradients of the last one and of a sequence.
        offset: of x in its storage.
        warp: the device's threads of a warp.
    """
    variant = usual(neuron) if variant is None else variant
    kernel, _ = kernel_for(NEURONS[neuron], variant.plain, "triton", False)
    shapes = {"one": (), "channel": (4,), "neuron": (2, 4, 8)}
    own = [kinds[j % len(kinds)] for j in range(len(traced(NEURONS[neuron], variant).constants))]
    which = [j for j, kind in enumerate(own) if kind != "number"]
    x = _input(dtype, steps, offset)
    state = [torch.ones(2, 4, 8) for _ in NEURONS[neuron].states] if outputs else []
    constants = [torch.ones(shapes[own[j]]) for j in which]
    centred = torch.ones(3, 4) if affine else None
    settings = (constants, centred, which, [1.0] * len(own), 1.0, kernel)
    wanted = [0] if outputs else []
    with _recorded(warp) as calls:
        *_, checkpoints = ops.forward(x, state, *settings, steps > CHECKPOINT_STEPS, outputs, wanted)
        ops.backward(x, state, [x] * len(wanted), x, state, checkpoints, *settings, wanted)
    return calls


def recorded_channel_calls(
    neurons: Sequence[str],
    dtype: torch.dtype = torch.float32,
    steps: int = 9,
    offset: int = 0,
    warp: int = 32,
    **settings: Any,
) -> list:
    """The launches of all passes around channels, but for the second stages of sums."""
    x = _input(dtype, steps, offset)
    variants = [usual(neuron, **settings) for neuron in neurons]
    kernels = [kernel_for(NEURONS[n], v.plain, "triton", False)[0] for n, v in zip(neurons, variants, strict=True)]
    values = [1.0 for n, v in zip(neurons, variants, strict=True) for _ in (*traced(NEURONS[n], v).constants, "alpha")]
    members = len(kernels)
    with _recorded(warp) as calls:
        codes, _ = channel_ops.super_neuron_encode(x, kernels, values)
        channel_ops.super_neuron_decode(codes, torch.ones(1 + members, 4), x)
        channel_ops.super_neuron_sums(codes, x, members)
        channel_ops.super_neuron_backward(x, x, codes, torch.ones(3 * members, 4), kernels, values)
        channel_ops.channel_sums(x)
        channel_ops.channel_affine(x, x, torch.ones(3, 4))
    return [call for call in calls if call[0].__name__ in CHANNEL_KERNELS]


def compiled(
    kernel: Any, arguments: dict[str, Any], architecture: int | str, warp: int = 32
) -> tuple[Any, dict[str, Any]]:
    """A launch's kernel as Triton compiles it, and the compiler's options; ``architecture``: 86, or "gfx942"."""
    parameters = inspect.signature(kernel.fn).parameters
    constants: dict[tuple, Any] = {}

    def type_of(value: Any, place: tuple) -> Any:
        if isinstance(value, tuple):
            return tuple(type_of(v, (*place, i)) for i, v in enumerate(value))
        if value is None:
            constants[place] = None
            return "constexpr"
        return _TYPES[value.dtype] if isinstance(value, Tensor) else "i32" if isinstance(value, int) else "fp32"

    signature = {}
    for i, name in enumerate(kernel.arg_names):
        if parameters[name].annotation is tl.constexpr:
            signature[name], constants[(i,)] = "constexpr", arguments[name]
        else:
            signature[name] = type_of(arguments[name], (i,))
    options = {k: v for k, v in arguments.items() if k not in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    target = GPUTarget("cuda" if isinstance(architecture, int) else "hip", architecture, warp)
    return triton.compile(source, target=target, options=options), options


def triton_kernel(
    call: tuple, dtype: torch.dtype, length: int, architecture: int, neuron: str = "", setting: str = ""
) -> Code:
    kernel, arguments = call
    code, options = compiled(kernel, arguments, architecture)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        ((_, usage, instructions),) = read(Path(file.name))
    name = kernel.__name__.removeprefix("scan_").replace("super_neuron", "super").replace("_", " ")
    return Code(
        "triton",
        {"super encode": "encode", "super decode": "decode"}.get(name, name),
        neuron.upper(),
        setting,
        str(dtype).removeprefix("torch."),
        f"T = {length}",
        architecture,
        32 * options["num_warps"],
        usage._replace(shared=code.metadata.shared),
        instructions,
    )


def triton_code(
    architecture: int,
    neurons: Sequence[str] = PAPER,
    lengths: Sequence[int] = LENGTHS,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
) -> Iterator[Code]:
    """The kernels of plain calls."""
    for neuron, dtype, length in itertools.product(neurons, dtypes, lengths):
        for call in recorded_calls(neuron, dtype=dtype, steps=length):
            yield triton_kernel(call, dtype, length, architecture, neuron)


def calls_of_options(neuron: str, surrogates: int = len(SURROGATES)) -> Iterator[tuple[tuple, str]]:
    """Launches with learnable constants; and of each surrogate with states and sequences, half of them with everything
    else that can be asked for as well."""
    yield recorded_calls(neuron, steps=16, kinds=("channel",))[1], "learnable constants"
    for k, surrogate in enumerate(SURROGATES[:surrogates]):
        variant = Variant(reset=("hard", "soft", "zero")[k % 3], surrogate=surrogate)
        steps, all_of_it = (16, 17, 3)[k % 3], k % 2 == 0
        kinds = ("channel", "neuron", "one") if all_of_it else ("number",)
        calls = recorded_calls(
            neuron, variant, steps=steps, kinds=kinds, affine=all_of_it, outputs=True, offset=int(not all_of_it)
        )
        for call in calls[:2]:
            yield call, "everything" if all_of_it else "states and sequences"


def triton_channel_code(
    architecture: int, neurons: Sequence[str] = PAPER, dtype: torch.dtype = torch.float32, length: int = 16, **more: Any
) -> Iterator[Code]:
    """The kernels around channels, for a super neuron of these neurons."""
    for call in recorded_channel_calls(neurons, dtype, length, **more):
        yield triton_kernel(call, dtype, length, architecture, "+".join(neurons))
