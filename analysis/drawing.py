"""What all figures share: their look, and how one becomes SVG, PNG and a part of the page. In: matplotlib figures. Out: text and bytes.

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
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1b1c1e", "#6c7076", "#d8dade", "#fefefe"
BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a000"
SERIES = (BLUE, RED, GREEN, PINK, ORANGE, SKY, YELLOW, MUTED)
DASHES = ("-", "--", "-.", ":")
WIDTH = 7.2  # inches: two columns of a journal
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


@contextmanager
def style() -> Iterator[None]:
    """The one look of all figures. A sign that the PNG's font lacks becomes a box there; in the SVG, whose text stays text, it is whole."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


@dataclass
class Drawing:
    """A figure with its file name (without ending), its text for those who cannot see it, and a tip for each link in it."""

    name: str
    words: str
    figure: Figure
    tips: dict[str, str] = field(default_factory=dict)

    def svg(self) -> str:
        out = io.StringIO()
        with style():
            self.figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Title": self.words})
        return out.getvalue()

    def png(self) -> bytes:
        out = io.BytesIO()
        with style():
            self.figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
        return out.getvalue()


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


def axes(height: float) -> tuple[Figure, Axes]:
    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    return fig, fig.subplots()


def short(text: str, most: int = 44) -> str:
    """One line, no longer than `most`; a name from outside must not break the figure."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"
