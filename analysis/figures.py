"""Figures of a study for a paper. In: a Study and its summaries. Out: PDFs: arms of each table, training curves, confusion matrices, and what single
runs left. The page draws its own (page/); these are made on demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import run_figures
from analysis.beside import Beside, class_names, external_sets
from analysis.drawing import BLUE, COLUMN, DASHES, INK, MUTED, RED, RULE, SERIES, WIDTH, Drawing, draw_matrix, short, style
from analysis.page import confusion_of, lone
from analysis.statistics import NONE, Interval
from analysis.study import Study, plural
from analysis.summary import Cell, Row, Summary, title
from analysis.tables import heading

_CURVES = 8  # arms in one training figure; more cannot be told apart


def pdfs(study: Study, beside: Beside) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of each figure for which the study has data; where it can live at the width of a column, that one too."""
    widths: list[Callable[..., Drawing | None]] = [partial(arms, s) for s in study.summaries if s.rows and not lone(s)]
    for name, words, rows in curve_pages(study, study.summaries):
        curves = study.history(k for row in rows for k in row.keys)
        widths.append(partial(training, study, name, words, rows, curves))
    widths += [partial(confusion, study, part) for part in ("", *(str(e["slug"]) for e in external_sets(study)))]
    widths.append(partial(run_figures.calibration, beside))
    for make in widths:
        for width, ending in ((WIDTH, ""), (COLUMN, "-column")):
            with style(width):
                drawing = make(width=width)
            if drawing is not None:
                yield f"{drawing.name}{ending}.pdf", drawing.pdf()
    with style():
        inside = run_figures.of_artefacts(study, beside)
    yield from ((f"{drawing.name}.pdf", drawing.pdf()) for drawing in inside if drawing is not None)


def curve_pages(study: Study, summaries: tuple[Summary, ...]) -> list[tuple[str, str, list[Row]]]:
    """(figure name, words, rows) for the training curves of each table, eight arms a figure; a table whose arms all stand in
    figures before it has none of its own."""
    drawn: set[str] = set()
    pages = []
    for summary in summaries:
        rows = list({r.arm.config_hash: r for r in summary.rows if r.keys and r.broken[1]}.values())
        if {r.arm.config_hash for r in rows} <= drawn:
            continue
        drawn |= {r.arm.config_hash for r in rows}
        count = math.ceil(len(rows) / _CURVES)
        for page in range(count):
            some = rows[page * len(rows) // count : (page + 1) * len(rows) // count]
            part = f"-{page + 1}" if count > 1 else ""
            words = f"Training curves, {heading(summary)}" + (f" (arms {page + 1} of {count})" if count > 1 else "")
            pages.append((f"training-{summary.table.slug}{part}", words, some))
    return pages


def arms(summary: Summary, width: float = WIDTH) -> Drawing:
    """Of each arm the gain over the baseline arm with its interval beside the paper's, and the level with every seed beside it; one below the other at
    the width of a column. Without a baseline arm the level alone; nothing of a paper that is not compared."""
    metric, narrow = summary.table.metric, width <= COLUMN
    base = next((r for r in summary.rows if r.is_baseline), None)
    panels = (["gain"] if base is not None and any(r.cells[metric].pairs for r in summary.rows) else []) + ["level"]
    height = (0.42 if narrow else 0.36) * len(summary.rows) + 0.75
    shape = (len(panels), 1) if narrow else (1, len(panels))
    fig = Figure(figsize=(width, height * shape[0]), layout="constrained")
    axes = fig.subplots(*shape, squeeze=False, sharey=not narrow).flat
    for ax, kind in zip(axes, panels, strict=True):
        for y, row in enumerate(summary.rows):
            cell = row.cells[metric]
            if y % 2 == 0:
                ax.axhspan(y - 0.5, y + 0.5, color=RULE, alpha=0.22, lw=0)
            _point(ax, y + 0.06, _ours(cell, kind), BLUE, "o")
            _point(ax, y - 0.22, _theirs(cell, kind), RED, "D")
            if kind == "level":
                ax.scatter([v for _, v in cell.values], [y + 0.3] * cell.n, s=9, facecolors="none", edgecolors=BLUE, linewidths=0.9)
            if row.state:
                ax.text(0.01, y + 0.06, short(row.state, 40), transform=ax.get_yaxis_transform(), va="center", fontsize=6.5, color=MUTED)
        ax.set_yticks(range(len(summary.rows)), [short(r.arm.name, 26 if narrow else 40) for r in summary.rows])
        ax.set_ylim(len(summary.rows) - 0.5, -0.5)
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel(f"gain over {short(summary.baseline or '', 24)}, points" if kind == "gain" else f"{title(metric)}, %")
        if kind == "gain":
            ax.axvline(0, color=MUTED, lw=0.9)
    handles = [axes[0].scatter([], [], s=26, color=BLUE, label="ours, 95 % interval")]
    if summary.against_paper:
        handles.append(axes[0].scatter([], [], s=20, marker="D", color=RED, label="published"))
    fig.legend(handles=handles, loc="outside upper center", ncols=2, handletextpad=0.3, columnspacing=1.4)
    return Drawing(
        f"table-{summary.table.slug}",
        f"{heading(summary)}: gain over the baseline arm and level{', ours and published' * summary.against_paper}",
        fig,
    )


def _ours(cell: Cell, kind: str) -> tuple[float, Interval]:
    return (cell.gain, cell.gain_interval) if kind == "gain" else (cell.mean, cell.interval)


def _theirs(cell: Cell, kind: str) -> tuple[float, Interval]:
    theirs = cell.published
    if kind == "level" and theirs and theirs.compared and not theirs.word:
        return theirs.mean, Interval(theirs.mean - theirs.std, theirs.mean + theirs.std)
    return (cell.paper_gain if kind == "gain" else None) or (math.nan, NONE)


def _point(ax: Axes, y: float, given: tuple[float, Sequence[float]], color: str, marker: str) -> None:
    value, (low, high) = given
    if math.isnan(value):
        return
    if not math.isnan(low):
        ax.plot([low, high], [y, y], color=color, lw=1.6, alpha=0.65, solid_capstyle="butt")
    ax.plot([value], [y], marker, color=color, ms=5 if marker == "o" else 4)


def training(study: Study, name: str, words: str, rows: list[Row], curves: pd.DataFrame, width: float = WIDTH) -> Drawing | None:
    """Loss and scores of each stage by epoch: mean over seeds per arm with the band from lowest to highest. curves: the history of the rows' runs."""
    narrow = width <= COLUMN
    measures = list(dict.fromkeys(("loss", study.intermediate, study.metric)))
    by_run = curves.groupby("key", sort=False)["stage"].unique()
    stages = list(dict.fromkeys(s for run in sorted(by_run, key=len, reverse=True) for s in run))  # a run with all stages tells their order
    panels = [(s, m) for s in stages for m in measures if m in curves and curves.loc[curves["stage"] == s, m].notna().any()]
    if not panels:
        return None
    columns = 1 if narrow else min(3 if len(panels) > 4 else 2, len(panels))
    lines = math.ceil(len(panels) / columns)
    fig = Figure(figsize=(width, (0.15 * len(rows) + 0.2 if narrow else 0.6) + (1.25 if narrow else 1.9) * lines), layout="constrained")
    axes = fig.subplots(lines, columns, squeeze=False)
    drawing = Drawing(name, f"{words}: mean over seeds, band from the lowest to the highest seed", fig)
    for ax, (stage, measure) in zip(axes.flat, panels, strict=False):
        for i, row in enumerate(rows):
            part = curves[(curves["stage"] == stage) & (curves["config_hash"] == row.arm.config_hash) & curves[measure].notna()]
            if part.empty:
                continue
            by = part.groupby("epoch")[measure].agg(["mean", "min", "max"]) * (1 if measure == "loss" else 100)
            color = SERIES[i % len(SERIES)]
            label = short(row.arm.name, 40)
            ax.plot(by.index, by["mean"], color=color, ls=DASHES[(i // 2) % 4], label=label, marker="o" if len(by) == 1 else "")
            ax.fill_between(by.index, by["min"], by["max"], color=color, alpha=0.13, lw=0)
        shown = "loss" if measure == "loss" else f"{title(measure)}, %"
        ax.set_title(f"{short(stage, 20)}: {shown}", fontsize=7 if narrow or columns == 3 else 8.5, loc="left", color=INK)
        ax.set_xlabel("epoch", labelpad=1)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
        ax.grid(axis="y")
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_axis_off()
    handles: dict[str, Any] = {}
    for ax in axes.flat:
        handles |= dict(zip(ax.get_legend_handles_labels()[1], ax.get_legend_handles_labels()[0], strict=True))
    fig.legend(handles=list(handles.values()), labels=list(handles), loc="outside lower center", ncols=1 if narrow else 2)
    return drawing


def confusion(study: Study, external: str = "", width: float = WIDTH) -> Drawing | None:
    """Rates by true class with counts, summed over the seeds of the best configuration; the test part where there is one, or an external set."""
    found, best = confusion_of(study, external), study.winner
    if found is None or best is None:
        return None
    part, matrix = found
    names = class_names(study, len(matrix))
    where = f"external set {external}" if external else f"{part} part"
    words = f"Confusion matrix of {best.name}, {where}, summed over {plural(len(best.keys), 'seed')}; rows are the truth"
    count = len(matrix)
    side = min(width, 1.7 + 0.75 * count) if count <= 8 else width
    fig = Figure(figsize=(side, (0.86 if width <= COLUMN else 0.82) * side), layout="constrained")
    draw_matrix(fig.subplots(), matrix, names, names, width <= COLUMN)
    return Drawing(f"confusion-external-{external}" if external else "confusion", words, fig)
