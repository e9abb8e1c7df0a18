"""What all figures for a paper share: their look, and how one becomes SVG and PDF. In: matplotlib figures. Out: text and bytes.

No date or random mark is written: the same records give the same bytes. Colours are Okabe and Ito's, which colour-blind people can tell apart;
shapes differ as well."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

INK, MUTED, RULE, PAPER = "#1b1c1e", "#6c7076", "#d8dade", "#fefefe"
BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a000"
SERIES = (BLUE, RED, GREEN, PINK, ORANGE, SKY, YELLOW, MUTED)
DASHES = ("-", "--", "-.", ":")
WIDTH, COLUMN = 7.2, 3.3  # inches: two columns of a journal, and one
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "analysis",
    "pdf.fonttype": 42,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
    "lines.linewidth": 1.5,
    "text.parse_math": False,
    "axes.formatter.useoffset": False,
}


_COLUMN_STYLE = {**_STYLE, "font.size": 7.0, "legend.fontsize": 6.5, "lines.linewidth": 1.1}


@contextmanager
def style(width: float = WIDTH) -> Iterator[None]:
    """The one look of all figures. A sign that the PDF's font lacks becomes a box there; in the SVG, whose text stays text, it is whole."""
    with matplotlib.rc_context(_STYLE if width > COLUMN else _COLUMN_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


@dataclass
class Drawing:
    """A figure with its file name (without ending) and its text for those who cannot see it."""

    name: str
    words: str
    figure: Figure

    def svg(self) -> str:
        """Text stays text."""
        out = io.StringIO()
        self._save(out, "svg", {"Date": None, "Creator": None, "Title": self._title})
        return out.getvalue()

    @property
    def _title(self) -> str:
        """`words` as far as UTF-8 can hold them: half a character becomes a question mark."""
        return self.words.encode(errors="replace").decode()

    def pdf(self) -> bytes:
        """For a paper: fonts embedded."""
        out = io.BytesIO()
        self._save(out, "pdf", {"CreationDate": None, "Creator": None, "Producer": None, "Title": self._title})
        return out.getvalue()

    def _save(self, out: Any, ending: str, metadata: dict[str, Any]) -> None:
        with style(self.figure.get_figwidth()):
            self.figure.savefig(out, format=ending, metadata=metadata)
            self.figure.set_layout_engine("none")  # what was laid out once stays so: a second layout costs as much as the drawing


def axes(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots()


def short(text: str, most: int = 44) -> str:
    """One line, no longer than `most`; a name from outside must not break the figure."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def draw_matrix(ax: Axes, matrix: np.ndarray, rows: tuple[str, ...], columns: tuple[str, ...], narrow: bool) -> None:
    """Counts (R, C), shaded by their share of the row; share and count stand in each cell as far as they can be read."""
    rates = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shades = matplotlib.colormaps["Blues"]
    many = max(matrix.shape)
    small = many > 8
    size = (6.2 if many > 5 else 6.8) if narrow else 8.5
    for i in range(len(rows)):
        for j in range(len(columns)):
            shade = shades(0.04 + 0.86 * float(rates[i, j]))
            ax.add_patch(Rectangle((j, i), 1, 1, facecolor=shade, edgecolor=PAPER, lw=0.4 if small else 1))
            if (narrow and many > 12) or (small and rates[i, j] < 0.005):
                continue
            light = 0.2126 * shade[0] + 0.7152 * shade[1] + 0.0722 * shade[2] > 0.5
            ink = "#111214" if light else "#fcfcfd"  # not INK: the cell keeps its colour in the dark theme, so must its text
            share = f"{100 * rates[i, j]:.0f}" if small else f"{100 * rates[i, j]:.0f} %" if narrow else f"{100 * rates[i, j]:.1f} %"
            label = share if small else f"{share}\n{matrix[i, j]:.0f}"
            ax.text(j + 0.5, i + 0.5, label, ha="center", va="center", color=ink, fontsize=(4.8 if narrow else 5.8) if small else size)
    ax.set_xlim(0, len(columns))
    ax.set_ylim(len(rows), 0)
    most = 16 if narrow else 22
    figure = ax.get_figure(root=True)
    cell = 0.62 * (figure.get_figwidth() if figure else WIDTH) / len(columns)  # inches, the labels of the rows taken off
    slant = max(len(short(n, most)) for n in columns) * (0.055 if narrow or small else 0.07) > cell
    tiny: Any = {"fontsize": 5.0 if narrow else 7.5} if small else {}
    ax.set_xticks(
        np.arange(len(columns)) + 0.5,
        [short(n, most) for n in columns],
        rotation=45 if slant else 0,
        ha="right" if slant else "center",
        rotation_mode="anchor" if slant else "default",
        **tiny,
    )
    ax.set_yticks(np.arange(len(rows)) + 0.5, [short(n, most) for n in rows], **tiny)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    for spine in ax.spines.values():
        spine.set_visible(False)
