"""What all figures share: their look, and how one becomes SVG, PDF and a part of the page. In: matplotlib figures. Out: text and bytes.

Text stays text in the SVG, every point that stands for a run links to it, and no date or random mark is written: the same records give
the same bytes. Colours are Okabe and Ito's, which colour-blind people can tell apart; shapes differ as well."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection
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
    """A figure with its file name (without ending), its text for those who cannot see it, a tip for each link in it, and the same figure
    at the width of one column of a journal where it can live there."""

    name: str
    words: str
    figure: Figure
    tips: dict[str, str] = field(default_factory=dict)
    column: Figure | None = None

    def svg(self, figure: Figure | None = None) -> str:
        """figure: `column`, or the figure itself."""
        out = io.StringIO()
        self._save(figure or self.figure, out, "svg", {"Date": None, "Creator": None, "Title": self._title})
        return out.getvalue()

    @property
    def _title(self) -> str:
        """`words` as far as UTF-8 can hold them: half a character becomes a question mark."""
        return self.words.encode(errors="replace").decode()

    def pdf(self, figure: Figure | None = None) -> bytes:
        """For a paper: fonts embedded, no links, which would lead nowhere there."""
        out = io.BytesIO()
        figure = figure or self.figure
        for artist in figure.findobj(Collection):
            artist.set_urls([None])
        self._save(figure, out, "pdf", {"CreationDate": None, "Creator": None, "Producer": None, "Title": self._title})
        return out.getvalue()

    def _save(self, figure: Figure, out: Any, ending: str, metadata: dict[str, Any]) -> None:
        with style(figure.get_figwidth()):
            figure.savefig(out, format=ending, metadata=metadata)
            figure.set_layout_engine("none")  # what was laid out once stays so: a second layout costs as much as the drawing


_THEMED = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "paper",
    BLUE: "blue",
    RED: "red",
    GREEN: "green",
    PINK: "pink",
    ORANGE: "orange",
    SKY: "sky",
    YELLOW: "yellow",
}


def inline(drawing: Drawing, svg: str) -> str:
    """The SVG as it stands in the page: no XML head, ids of its own, colours by the page's theme, a tip on each linked point."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r"<title>.*?</title>", "", body, count=1, flags=re.S)
    name = re.sub(r"[^A-Za-z0-9-]", "-", drawing.name)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'<use xlink:href="#', f'<use xlink:href="#{name}-', body)
    body = re.sub("|".join(_THEMED), lambda m: f"var(--{_THEMED[m[0]]})", body)
    body = re.sub(r"font: ([\d.]+px) 'DejaVu Sans'", r"font-size: \1", body)
    body = re.sub(r"font: (\w+) ([\d.]+px) 'DejaVu Sans'", r"font-weight: \1; font-size: \2", body)

    def tip(match: re.Match[str]) -> str:
        words = drawing.tips.get(match[1])
        return f'<a xlink:href="{match[1]}">' + (f"<title>{html.escape(words)}</title>" if words else "")

    body = re.sub(r'<a xlink:href="([^"]*)"[^>]*>', tip, body)
    label = f'<svg role="img" aria-label="{html.escape(drawing.words)}" '
    size = re.search(r'viewBox="[^"]*"', body)
    return label + (size[0] if size else "") + body[body.index(">") :]


def alone(svg: str) -> str:
    """The SVG as a file in figures/: its points lead to the runs in the report."""
    return svg.replace('<a xlink:href="#', '<a xlink:href="../report.html#').replace(' target="_blank"', "")


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
