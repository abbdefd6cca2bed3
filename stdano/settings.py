"""Settings of a run: plain, frozen, saved as JSON beside what they made, and the command line's options."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np

from stdano_kernels.backends import NAMES as BACKENDS

SETTINGS = "settings.json"  # in the folder of a run
MOST_PIXELS = 8192  # a side
MOST_PROCESSES = 1024  # and threads: a slip of the finger must not start millions
LARGEST = 2**31 - 1  # of whole numbers but seeds: beyond it counts of elements overflow


class _Part:
    """Values of a part have the types of the defaults; what NumPy, paths and JSON have instead becomes these."""

    def __post_init__(self) -> None:
        for value in dataclasses.fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, value.name, _typed(value.name, getattr(self, value.name), value.default))


@dataclass(frozen=True)
class DataSettings(_Part):
    """Which data, and how training samples are varied."""

    data: str = "digits"
    """digits, cifar10, cifar100, tiny-imagenet, folder:PATH, digits-events, nmnist, dvs-cifar10, dvs-gesture, or
    tonic:NAME; see stdano.data"""
    root: str = "data"
    """folder in which data sets lie, and into which they are downloaded"""
    cache: str = ""
    """folder for decoded images and frames; default: stdano in the user's cache folder"""
    size: int = 0
    """height and width in pixels; 0: the data set's own"""
    frames: str = "count"
    """events are cut into T frames with equally many events each (count) or of equal duration (time)"""
    values: str = "counts"
    """pixels of event frames: number of events, scaled (counts), or whether there is one (binary)"""
    crop: int = 0
    """training images are padded by so many pixels and cropped at random; 0: not"""
    flip: bool = False
    """half of the training samples are mirrored, left to right"""
    cutout: int = 0
    """side in pixels of a square that is cut out of each training image (CutOut); 0: not"""
    nda: bool = False
    """each training sample is rolled, rotated, sheared or cut, all its frames alike (NDA)"""
    workers: int = -1
    """processes that prepare batches; -1: none on the CPU and for small sets, else up to 4"""

    def check(self) -> None:
        """Raises ValueError where a value is not allowed; names it. Loading checks what depends on the files."""
        _choice(self, "frames", ("count", "time"))
        _choice(self, "values", ("counts", "binary"))
        _at_least(self, {"size": 0, "crop": 0, "cutout": 0})
        _at_least(self, {"workers": -1}, MOST_PROCESSES)
        if self.size > MOST_PIXELS:
            memory = f"{3 * self.size**2 / 2**30:,.0f} GiB"
            raise ValueError(
                f"size must be at most {MOST_PIXELS} pixels, got {self.size}: one image would take {memory}"
            )


@dataclass(frozen=True)
class ModelSettings(_Part):
    """The network and its neurons."""

    model: str = "vgg-small"
    """vgg-small, vgg11, vgg13, vgg16 or resnet18"""
    neurons: str = "LLIF"
    """LIF, LLIF, SLIF, ALIF, "LIF(tau=4)", mypackage.mymodule:MyNeuron and so on for all layers; a digit a layer (0
    LIF, 1 LLIF, 2 SLIF), or such names between commas; or a method of table 1: LLIF-1, SLIF-4. A search looks for it"""
    T: int = 4
    """time steps"""
    width: float = 1.0
    """factor on the number of channels of every layer"""
    dropout: float = 0.0
    """share of features dropped, the same for all time steps"""
    tau: float = 1.1
    """time constant of the neurons, in time steps"""
    decay: str = "exp"
    """decay of the potential in a step: exp (exp(-1/tau)) or linear (1 - 1/tau)"""
    v_threshold: float = 1.0
    """threshold of the neurons"""
    surrogate_function: str = "triangle"
    """surrogate of the spike's derivative, see stdano_kernels.SURROGATES"""
    surrogate_alpha: float = 1.0
    """sharpness of the surrogate"""
    gamma: float = 0.1
    """adaptation of LLIF's threshold"""
    beta: float = 0.1
    """adaptation of SLIF's time constant"""
    tau_min: float = 1.05
    """lower bound of SLIF's time constant"""
    detach_adapt: bool = False
    """SLIF's adaptation counts as a constant in the backward pass"""
    backend: str = "auto"
    """backend of the neurons, see stdano info"""

    def check(self) -> None:
        """Raises ValueError where a value is not allowed. The constants of neurons are checked by these."""
        from .models import neuron_string, num_spiking_layers

        num_spiking_layers(self.model)
        if self.neurons:  # a search's, and those of a preset whose string is not certain, are empty
            neuron_string(self.model, self.neurons)
        _at_least(self, {"T": 1})
        _between(self, {"dropout": 1.0})
        _positive(self, ("width",))
        _choice(self, "backend", ("auto", *BACKENDS))


@dataclass(frozen=True)
class OptimiserSettings(_Part):
    """How weights are trained: SGD, a learning rate that falls as a cosine to 0, TET loss."""

    epochs: int = 15
    """passes over the training samples"""
    batch_size: int = 64
    """samples a step, over all devices"""
    accumulate: int = 1
    """parts in which a step's samples are computed one after the other, to save memory"""
    lr: float = 0.1
    """learning rate at the start"""
    momentum: float = 0.9
    """momentum of SGD"""
    weight_decay: float = 5e-4
    """weight decay of SGD"""
    lam: float = 0.05
    """weight of the regularising term of the TET loss (eq. 59 of the paper)"""
    seed: int = 0
    """seed of weights, order, augmentation and of the search's halves"""

    def check(self) -> None:
        """Raises ValueError where a value is not allowed; names it."""
        _at_least(self, {"epochs": 1, "batch_size": 1, "accumulate": 1})
        _at_least(self, {"seed": 0}, 2**64 - 1)
        _between(self, {"momentum": 1.0, "weight_decay": math.inf, "lam": 1.0})
        _positive(self, ("lr",))


@dataclass(frozen=True)
class SearchOptions(_Part):
    """How the search looks for neurons."""

    alpha_lr: float = 3e-4
    """learning rate of alpha; Adam with betas (0.5, 0.999)"""
    alpha_weight_decay: float = 1e-4
    """weight decay of alpha"""
    order: int = 1
    """1: alpha's gradient at the current weights; 2: at the weights after one more step (twice the time)"""
    candidates: tuple[str, ...] = ("LIF", "LLIF", "SLIF")
    """two to eight neurons to choose from: LIF, ALIF and so on, with settings of their own as in "LIF(tau=4)", or one's
    own as in mypackage.mymodule:MyNeuron"""
    patience: int = 0
    """stop early when the choice of every layer has been the same for so many epochs; 0: never"""
    warmup: int = 0
    """epochs at the start in which alpha does not move"""
    selection: str = "alpha"
    """what decides: the largest alpha (alpha), or, layer by layer, the candidate whose removal hurts most
    (perturbation)"""
    tune_epochs: int = 1
    """epochs of fine-tuning between two decisions of the perturbation"""
    tune_lr: float = 0.01
    """learning rate of this fine-tuning"""

    def check(self) -> None:
        """Raises ValueError where a value is not allowed; names it."""
        _positive(self, ("alpha_lr",))
        _between(self, {"alpha_weight_decay": math.inf})
        _choice(self, "order", (1, 2))
        _at_least(self, {"patience": 0, "warmup": 0, "tune_epochs": 1})
        _choice(self, "selection", ("alpha", "perturbation"))
        _positive(self, ("tune_lr",))
        from .nodes.candidates import check_candidates

        check_candidates("candidates", self.candidates)


@dataclass(frozen=True)
class RunSettings(_Part):
    """Devices and files."""

    accelerator: str = "auto"
    """cpu, cuda or auto"""
    devices: int = 0
    """processes on this machine, one a device; 0: those of torchrun, else one"""
    num_nodes: int = 1
    """machines; under torchrun its own number counts"""
    strategy: str = "auto"
    """auto or ddp"""
    find_unused_parameters: bool = False
    """with several processes: for a network of one's own with parameters that a step may not use"""
    precision: str = "32-true"
    """32-true, bf16-mixed or 16-mixed"""
    sync_statistics: bool = False
    """statistics of BatchNorm and of super neurons over all processes"""
    threads: int = 0
    """CPU threads; 0 for PyTorch's choice, which the run's settings then record"""
    fuse: bool = True
    """BatchNorm and neuron in one kernel"""
    pack_spikes: str = "auto"
    """on or off: spikes kept for the backward pass take one bit each (stdano.packed_spikes); auto: on CPUs on"""
    channels_last: bool = True
    """channels innermost in memory, which convolutions prefer"""
    keep_memory: bool = True
    """on a CPU: memory that is freed stays with the process, see stdano.keep_freed_memory; faster, and takes more"""
    tensorboard: bool = False
    """logs for TensorBoard as well; needs the package tensorboard"""

    def check(self) -> None:
        """Raises ValueError where a value is not allowed; names it."""
        _choice(self, "accelerator", ("auto", "cpu", "cuda"))
        _choice(self, "strategy", ("auto", "ddp"))
        _choice(self, "pack_spikes", ("auto", "on", "off"))
        _choice(self, "precision", ("32-true", "bf16-mixed", "16-mixed"))
        _at_least(self, {"devices": 0, "threads": 0}, MOST_PROCESSES)
        _at_least(self, {"num_nodes": 1})


@dataclass(frozen=True)
class TrainSettings:
    """What a training run depends on."""

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def check(self) -> None:
        """Raises ValueError where a value is not allowed; names it."""
        for part in dataclasses.fields(self):
            getattr(self, part.name).check()


@dataclass(frozen=True)
class SearchSettings(TrainSettings):
    """What a search depends on: what a training run does, and how alpha moves."""

    search: SearchOptions = field(default_factory=SearchOptions)

    def check(self) -> None:
        super().check()
        if self.search.warmup >= self.optimiser.epochs:
            raise ValueError(f"warmup must be less than the {self.optimiser.epochs} epochs, got {self.search.warmup}")


Settings = TypeVar("Settings", bound=TrainSettings)


def replace(settings: Settings, **values: Any) -> Settings:
    """A copy with other values, each given by its name alone: ``replace(settings, lr=0.05, data="cifar10")``.

    Raises:
        TypeError: there is no setting of that name.
    """
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        owner = [p.name for p in dataclasses.fields(settings) if hasattr(getattr(settings, p.name), name)]
        if not owner:
            raise TypeError(f"there is no setting {name!r}")
        parts.setdefault(owner[0], {})[name] = value
    return dataclasses.replace(
        settings, **{part: dataclasses.replace(getattr(settings, part), **new) for part, new in parts.items()}
    )


def to_json(settings: TrainSettings) -> str:
    """All settings as JSON, one object a part."""
    return json.dumps(dataclasses.asdict(settings), indent=2) + "\n"


def from_json(text: str | bytes, kind: type[Settings], source: object = "the text") -> Settings:
    """The settings that :func:`to_json` wrote. Parts and values that are left out have their defaults; a training run
    can be given the settings of a search, whose own part it leaves out.

    Args:
        text: JSON; bytes in UTF-8, UTF-16 or UTF-32.
        kind: :class:`TrainSettings` or :class:`SearchSettings`.
        source: named in errors: the file.

    Raises:
        ValueError: it is something else; a name is unknown; or a value has another type.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} must hold the settings of a run, as JSON: {error}") from error
    known = {part.name: part for part in dataclasses.fields(SearchSettings)}
    if not isinstance(values, dict) or set(values) - set(known):
        raise ValueError(f"{source} must hold an object with {', '.join(known)}, got {_short(values)}")
    parts = {}
    for part in dataclasses.fields(kind):
        given, default = values.get(part.name, {}), getattr(kind(), part.name)
        names = {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}
        if not isinstance(given, dict) or set(given) - set(names):
            raise ValueError(f"{source}: {part.name} must be an object with some of {', '.join(names)}, got {given}")
        parts[part.name] = dataclasses.replace(
            default, **{name: _typed(f"{source}: {part.name}.{name}", v, names[name]) for name, v in given.items()}
        )
    return kind(**parts)


def read_settings(path: Path, kind: type[Settings]) -> Settings:
    """The settings in a file that a run saved; see :func:`from_json`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} must hold the settings of a run, as JSON: {error}") from error
    return from_json(text, kind, path)


def run_settings(folder: Path, kind: type[Settings]) -> Settings:
    """The settings of the run in a folder.

    Raises:
        ValueError: there is no run in it, or one of another kind.
    """
    settings = read_settings(folder / SETTINGS, kind)
    if is_search(folder) != (kind is SearchSettings):
        wanted, found = ("a search", "a training run") if kind is SearchSettings else ("a training run", "a search")
        raise ValueError(f"the folder must hold {wanted}, {folder} holds {found}")
    return settings


def is_search(folder: Path) -> bool:
    """Whether the run in a folder is a search."""
    return "search" in json.loads((folder / SETTINGS).read_bytes())


def _typed(name: str, value: Any, default: Any) -> Any:
    kind = type(default)
    others = {int: numbers.Integral, float: numbers.Real, bool: np.bool_, tuple: list, str: PurePath}
    new = kind(value) if isinstance(value, others[kind]) and not isinstance(value, bool) else value
    if type(new) is kind and all(isinstance(entry, str) for entry in (new if isinstance(new, tuple) else ())):
        return new
    raise ValueError(f"{name} must be a {kind.__name__} like {default!r}, got {value!r}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _choice(settings: Any, name: str, allowed: tuple[Any, ...]) -> None:
    if getattr(settings, name) not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {getattr(settings, name)!r}")


def _at_least(settings: Any, lowest: dict[str, int], largest: int = LARGEST) -> None:
    for name, low in lowest.items():
        if getattr(settings, name) < low:
            raise ValueError(f"{name} must be {low} or more, got {getattr(settings, name)}")
        if getattr(settings, name) > largest:
            raise ValueError(f"{name} must be {largest} or less, got {getattr(settings, name)}")


def _between(settings: Any, limits: dict[str, float]) -> None:
    for name, limit in limits.items():
        if not 0 <= getattr(settings, name) < limit:
            raise ValueError(f"{name} must be at least 0 and below {limit:g}, got {getattr(settings, name)}")


def _positive(settings: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if not (math.isfinite(getattr(settings, name)) and getattr(settings, name) > 0):
            raise ValueError(f"{name} must be a finite number above 0, got {getattr(settings, name)}")
