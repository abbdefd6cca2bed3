"""How pictures look: colours that the colour-blind tell apart, widths that a phone shows, lines and text in one ink,
which a page in dark colours replaces by its own."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from ..training.checkpoint import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

WIDTH = 4.2  # inches: about 400 pixels of a page; text stays as large as the page's
INK = "#010203"  # of lines and text; no other colour is it
# Okabe and Ito (2008), "Color Universal Design"; yellow left out, which white paper swallows.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8B5A2B", "#7F7F7F")
NEURON_COLOURS = {"LIF": COLOURS[0], "LLIF": COLOURS[1], "SLIF": COLOURS[2]}
LINES = ("-", "--", ":", "-.")  # beside colours: nothing is told by colour alone

STYLE: Any = {  # matplotlib's settings, whose names its types list one by one
    "figure.figsize": (WIDTH, 2.8),
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#808080",
    "grid.alpha": 0.25,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",  # text stays text, which readers and search find
    "svg.hashsalt": "stdano",
}


def drawn(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """A function that draws a figure, in this style."""

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib
        from cycler import cycler

        colours: Any = {"axes.prop_cycle": cycler(color=COLOURS)}
        with matplotlib.rc_context(STYLE | colours):
            return function(*args, **kwargs)

    return draw


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def below(figure: Figure, axis: Axes, columns: int) -> None:
    """The legend of an axis at the foot of the figure, where it covers nothing."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def save(figure: Figure, path: Path) -> None:
    """Writes a picture, of the kind that the file's ending names (.png, .svg), to a temporary name first."""
    text = _render(figure, path.suffix[1:])
    write_atomically(path, lambda file: file.write(text))


def svg(figure: Figure, name: str) -> str:
    """A figure as an element for a page of HTML: ink in the colour of the page's text, nothing behind it.

    Args:
        figure: as a function with :func:`drawn` returns it.
        name: of letters and digits, another one for each figure of a page: names inside of the picture begin with it.
    """
    text = _render(figure, "svg").decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)


def _render(figure: Figure, kind: str) -> bytes:
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        more: dict[str, Any] = {"metadata": {"Date": None}, "transparent": True} if kind == "svg" else {"dpi": 160}
        figure.savefig(file, format=kind, **more)
    return file.getvalue()
