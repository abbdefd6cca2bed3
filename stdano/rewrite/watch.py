"""What layers take and give while a model runs, shown to whoever counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..nodes.link import reads_output_alone

See = Callable[[str, nn.Module, Tensor, Tensor], None]


@contextmanager
def watched(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Within, ``see(name, layer, input, output)`` is called after each call of a layer; of a neuron that was asked for
    states as well, ``output`` is the spikes. Neurons that are fused with their norm stay so; their ``input`` is what
    the norm was given."""
    handles = []
    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_hook(_hook(name, see), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(
    name: str, see: See
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor | tuple[Any, ...]], None]:
    @reads_output_alone
    def show(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], out: Tensor | tuple[Any, ...]) -> None:
        see(name, layer, (*inputs, *named.values())[0], out[0] if isinstance(out, tuple) else out)

    return show
