"""The Triton kernels, compiled as operators would launch them, without a GPU: nothing is run."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from _gpu_code import Code, read
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
# T that is done at once, T of whole parts, and T that leaves a rest.
LENGTHS = {4: "T = 4", 16: "T = 16", 17: "T = 17"}
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
def _recorded() -> Iterator[list]:
    """Keeps kernels and arguments of launches instead of launching them."""
    calls: list = []
    before = launch.run
    launch.run = lambda kernel, grid, arguments: calls.append((kernel, arguments))
    try:
        yield calls
    finally:
        launch.run = before


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
) -> list:
    """The launches of a train step on a small tensor of four channels.

    Args:
        kinds: what the constants are, in turn: a number, or a tensor of one, one a channel, or one a neuron.
        outputs: with an initial state, and gradients of the last one and of a sequence.
        offset: of x in its storage.
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
    with _recorded() as calls:
        *_, checkpoints = ops.forward(x, state, *settings, steps > CHECKPOINT_STEPS, outputs, wanted)
        ops.backward(x, state, [x] * len(wanted), x, state, checkpoints, *settings, wanted)
    return calls


def recorded_channel_calls(
    neurons: Sequence[str],
    dtype: torch.dtype = torch.float32,
    steps: int = 9,
    offset: int = 0,
    **settings: Any,
) -> list:
    """The launches of all passes around channels, but for the second stages of sums."""
    x = _input(dtype, steps, offset)
    variants = [usual(neuron, **settings) for neuron in neurons]
    kernels = [kernel_for(NEURONS[n], v.plain, "triton", False)[0] for n, v in zip(neurons, variants, strict=True)]
    values = [1.0 for n, v in zip(neurons, variants, strict=True) for _ in traced(NEURONS[n], v).constants]
    members = len(kernels)
    with _recorded() as calls:
        codes, _ = channel_ops.super_neuron_encode(x, kernels, values, 1.0)
        channel_ops.super_neuron_decode(codes, torch.ones(1 + members, 4), x)
        channel_ops.super_neuron_sums(codes, x, members)
        channel_ops.super_neuron_backward(x, x, codes, torch.ones(3 * members, 4), kernels, values, 1.0)
        channel_ops.channel_sums(x)
        channel_ops.channel_affine(x, x, torch.ones(3, 4))
    return [call for call in calls if call[0].__name__ in CHANNEL_KERNELS]


def compiled(kernel: Any, arguments: dict[str, Any], architecture: int) -> tuple[Any, dict[str, Any]]:
    """A launch's kernel as Triton compiles it, and the compiler's options."""
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
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options), options


def triton_kernel(
    neuron: str, kind: str, dtype: torch.dtype, architecture: int, kernel: Any, arguments: dict, aligned: bool = False
) -> Code:
    code, options = compiled(kernel, arguments, architecture)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        ((_, usage, opcodes),) = read(Path(file.name))
    return Code(
        "triton",
        neuron.upper(),
        kind,
        str(dtype).removeprefix("torch."),
        architecture,
        32 * options["num_warps"],
        usage["registers"],
        usage["stack"] + usage["local"],
        code.metadata.shared,
        opcodes,
        aligned=aligned,
        steps=arguments["HOW"].steps,
    )


def triton_code(architecture: int, main: bool) -> Iterator[Code]:
    """The kernels of plain calls and of learnable constants, at some lengths (``main``); of every neuron and option."""
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    for neuron in PAPER if main else NEURONS:
        for dtype in dtypes:
            for steps, note in LENGTHS.items():
                if main and steps == 17 and dtype != torch.float32:
                    continue
                for kernel, arguments in recorded_calls(neuron, dtype=dtype, steps=steps):
                    kind = kernel.__name__.removeprefix("scan_")
                    code = triton_kernel(neuron, kind, dtype, architecture, kernel, arguments, aligned=True)
                    code.length = note
                    yield code
        calls = recorded_calls(neuron, steps=16, kinds=("channel",))
        yield triton_kernel(neuron, "backward with sums", torch.float32, architecture, *calls[1], aligned=True)
        if not main:
            yield from _code_of_options(neuron, architecture)


def _code_of_options(neuron: str, architecture: int) -> Iterator[Code]:
    """With each surrogate, states and sequences; for half of them everything else that can be asked for as well."""
    for k, surrogate in enumerate(SURROGATES):
        variant = Variant(reset=("hard", "soft", "zero")[k % 3], surrogate=surrogate)
        steps, all_of_it = (16, 17, 3)[k % 3], k % 2 == 0
        kinds = ("channel", "neuron", "one") if all_of_it else ("number",)
        calls = recorded_calls(
            neuron, variant, steps=steps, kinds=kinds, affine=all_of_it, outputs=True, offset=int(not all_of_it)
        )
        for (kernel, arguments), kind in zip(calls, ("forward", "backward with sums"), strict=False):
            kind = f"{kind} and affine" if all_of_it else kind.split()[0]
            yield triton_kernel(neuron, kind, torch.float32, architecture, kernel, arguments)


def triton_channel_code(architecture: int, main: bool) -> Iterator[Code]:
    """The kernels around channels; of other dtypes, lengths and sets of neurons too unless ``main``."""
    variants: list[tuple] = [(torch.float32, PAPER, 16, 0, {})]
    if not main:
        variants += [(torch.bfloat16, PAPER, 4, 0, {}), (torch.float32, PAPER, 17, 1, {"surrogate": "sigmoid"})]
        variants += [(torch.float16, (n,), 17, 0, {"reset": r}) for n in PAPER for r in ("zero", "soft")]
        variants += [(torch.float32, tuple(NEURONS), 16, 0, {})]
    seen = set()
    for dtype, neurons, steps, offset, settings in variants:
        for kernel, arguments in recorded_channel_calls(neurons, dtype, steps, offset, **settings):
            name = kernel.__name__
            own = (neurons, *settings.items()) if "encode" in name or "backward" in name else (len(neurons),)
            key = (name, dtype, arguments["HOW"], own)
            if key not in seen:
                seen.add(key)
                yield triton_kernel("", name, dtype, architecture, kernel, arguments)
