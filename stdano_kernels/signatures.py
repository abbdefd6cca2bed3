"""The functions of neurons as type checkers see them: which options return what. Nothing here is imported at run time;
the functions themselves are made from the declarations (functional.py), and a test compares their arguments.

The three protocols of LIF, LLIF and SLIF differ in two names alone. They cannot be one: ``Unpack`` takes no type
variable, so which keywords there are cannot be a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypedDict, TypeVar, overload

from torch import Tensor
from typing_extensions import Unpack

from .define.neuron import Neuron

State = TypeVar("State", covariant=True)
Yes = Literal[True]
No = Literal[False]
Names = Sequence[str]
Sequences = tuple[Tensor, ...]

if TYPE_CHECKING:

    class LIFState(NamedTuple):
        """State of :func:`stdano_kernels.lif` between two calls, each of shape ``x.shape[1:]``."""

        v: Tensor

    class LLIFState(NamedTuple):
        """State of :func:`stdano_kernels.llif` between two calls, each of shape ``x.shape[1:]``."""

        v: Tensor
        theta: Tensor

    class SLIFState(NamedTuple):
        """State of :func:`stdano_kernels.slif` between two calls, each of shape ``x.shape[1:]``."""

        v: Tensor
        p: Tensor

else:
    from .functional import LIFState, LLIFState, SLIFState


class LIF(TypedDict, total=False):
    """What LIF, LLIF and SLIF take beside x and what is to be returned."""

    state: tuple[Tensor, ...] | None
    tau: float | Tensor
    v_threshold: float | Tensor
    v_reset: float | Tensor | None
    decay: str
    decay_input: bool
    surrogate: str
    alpha: float
    detach_reset: bool
    spike: str
    affine: Tensor | None
    backend: str


class LLIF(LIF, total=False):
    """LLIF's own arguments as well."""

    gamma: float | Tensor
    detach_adapt: bool
    squash: str


class SLIF(LIF, total=False):
    """SLIF's own arguments as well."""

    beta: float | Tensor
    tau_min: float | Tensor
    detach_adapt: bool
    squash: str


class Function(Protocol[State]):
    """What :func:`stdano_kernels.function` makes of a declaration, whose constants and options are keyword arguments.
    ``State`` is the type of its states, a named tuple of tensors."""

    neuron: type[Neuron]
    __name__: str

    @overload
    def __call__(self, x: Tensor, *, return_v_seq: Yes, **more: Any) -> Any: ...
    @overload
    def __call__(
        self, x: Tensor, *, return_state: Yes, return_sequences: Names, **more: Any
    ) -> tuple[Tensor, State, Sequences]: ...
    @overload
    def __call__(self, x: Tensor, *, return_state: Yes, **more: Any) -> tuple[Tensor, State]: ...
    @overload
    def __call__(self, x: Tensor, *, return_sequences: Names, **more: Any) -> tuple[Tensor, Sequences]: ...
    @overload
    def __call__(self, x: Tensor, *, return_state: No = False, return_v_seq: No = False, **more: Any) -> Tensor: ...
    @overload
    def __call__(
        self,
        x: Tensor,
        *,
        return_state: bool = False,
        return_v_seq: bool = False,
        return_sequences: Names = (),
        **more: Any,
    ) -> Any: ...


class LIFFunction(Protocol):
    """The type of :func:`stdano_kernels.lif`."""

    neuron: type[Neuron]
    __name__: str

    @overload
    def __call__(
        self, x: Tensor, *, return_state: No = False, return_v_seq: No = False, **more: Unpack[LIF]
    ) -> Tensor: ...
    @overload
    def __call__(self, x: Tensor, *, return_state: Yes, **more: Unpack[LIF]) -> tuple[Tensor, LIFState]: ...
    @overload
    def __call__(self, x: Tensor, *, return_v_seq: Yes, **more: Unpack[LIF]) -> tuple[Tensor, Tensor]: ...
    @overload
    def __call__(self, x: Tensor, *, return_sequences: Names, **more: Unpack[LIF]) -> tuple[Tensor, Sequences]: ...
    @overload
    def __call__(
        self, x: Tensor, *, return_state: Yes, return_sequences: Names, **more: Unpack[LIF]
    ) -> tuple[Tensor, LIFState, Sequences]: ...
    @overload
    def __call__(
        self,
        x: Tensor,
        *,
        return_state: bool = False,
        return_v_seq: bool = False,
        return_sequences: Names = (),
        **more: Unpack[LIF],
    ) -> Any: ...


class LLIFFunction(Protocol):
    """The type of :func:`stdano_kernels.llif`."""

    neuron: type[Neuron]
    __name__: str

    @overload
    def __call__(
        self, x: Tensor, *, return_state: No = False, return_v_seq: No = False, **more: Unpack[LLIF]
    ) -> Tensor: ...
    @overload
    def __call__(self, x: Tensor, *, return_state: Yes, **more: Unpack[LLIF]) -> tuple[Tensor, LLIFState]: ...
    @overload
    def __call__(self, x: Tensor, *, return_v_seq: Yes, **more: Unpack[LLIF]) -> tuple[Tensor, Tensor]: ...
    @overload
    def __call__(self, x: Tensor, *, return_sequences: Names, **more: Unpack[LLIF]) -> tuple[Tensor, Sequences]: ...
    @overload
    def __call__(
        self, x: Tensor, *, return_state: Yes, return_sequences: Names, **more: Unpack[LLIF]
    ) -> tuple[Tensor, LLIFState, Sequences]: ...
    @overload
    def __call__(
        self,
        x: Tensor,
        *,
        return_state: bool = False,
        return_v_seq: bool = False,
        return_sequences: Names = (),
        **more: Unpack[LLIF],
    ) -> Any: ...


class SLIFFunction(Protocol):
    """The type of :func:`stdano_kernels.slif`."""

    neuron: type[Neuron]
    __name__: str

    @overload
    def __call__(
        self, x: Tensor, *, return_state: No = False, return_v_seq: No = False, **more: Unpack[SLIF]
    ) -> Tensor: ...
    @overload
    def __call__(self, x: Tensor, *, return_state: Yes, **more: Unpack[SLIF]) -> tuple[Tensor, SLIFState]: ...
    @overload
    def __call__(self, x: Tensor, *, return_v_seq: Yes, **more: Unpack[SLIF]) -> tuple[Tensor, Tensor]: ...
    @overload
    def __call__(self, x: Tensor, *, return_sequences: Names, **more: Unpack[SLIF]) -> tuple[Tensor, Sequences]: ...
    @overload
    def __call__(
        self, x: Tensor, *, return_state: Yes, return_sequences: Names, **more: Unpack[SLIF]
    ) -> tuple[Tensor, SLIFState, Sequences]: ...
    @overload
    def __call__(
        self,
        x: Tensor,
        *,
        return_state: bool = False,
        return_v_seq: bool = False,
        return_sequences: Names = (),
        **more: Unpack[SLIF],
    ) -> Any: ...
