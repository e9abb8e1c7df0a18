"""Figures of a study. In: a Study and its summaries. Out: `Drawing`s: arms of each table, training curves, confusion matrices, and the search's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import pareto, run_figures, search_figures
from analysis.beside import Beside, class_names, external_sets
from analysis.choice import Best
from analysis.drawing import BLUE, COLUMN, DASHES, INK, MUTED, RED, RULE, SERIES, WIDTH, Drawing, axes, draw_matrix, short, style
from analysis.search import importances
from analysis.study import Study, plural
from analysis.summary import Row, Summary, title
from analysis.tables import heading, plus_minus

_CURVES = 8  # arms in one training figure; more cannot be told apart


def drawings(
    study: Study,
    trials: pd.DataFrame,
    summaries: tuple[Summary, ...],
    best: Best | None,
    links: Mapping[str, str],
    beside: Beside,
    light: bool = False,
    column: bool = False,
) -> Iterator[Drawing]:
    """Each figure for which the study has data, in the page's order. links: record key -> address of the run in the report. light: no
    embedding map. column: where a figure can live at the width of a column, that one too."""
    found = importances(study, trials)
    widths: list[Callable[..., Drawing | None]] = [partial(arms, s, study, links) for s in summaries if s.rows and not lone(s)]
    yield from _at_widths(widths, column)
    with style():
        searched = [
            search_figures.history(study, trials, links),
            search_figures.curves(study, trials, links),
            search_figures.importance(found),
            search_figures.slices(study, trials, found, links),
            search_figures.parallel(study, trials),
            pareto.drawing(study, trials, links),
            search_figures.timeline(study, links),
        ]
    yield from (drawing for drawing in searched if drawing is not None)
    widths = []
    for name, words, rows in curve_pages(study, summaries):
        curves = study.history(k for row in rows for k in row.keys)
        widths.append(partial(training, study, name, words, rows, curves))
    widths += [partial(confusion, study, best, part) for part in ("", *(str(e["slug"]) for e in external_sets(study)))]
    yield from _at_widths([*widths, partial(run_figures.calibration, beside)], column)
    with style():
        inside = run_figures.of_artefacts(study, beside, light)
    yield from (drawing for drawing in inside if drawing is not None)


def _at_widths(makers: Iterable[Callable[..., Drawing | None]], column: bool) -> Iterator[Drawing]:
    for make in makers:
        with style():
            drawing = make()
        if drawing is not None and column:
            with style(COLUMN):
                narrow = make(width=COLUMN)
                drawing.column = narrow.figure if narrow is not None else None
        if drawing is not None:
            yield drawing


def lone(summary: Summary) -> bool:
    """The search's own table where its best point is the published configuration: one arm, nothing to set beside it."""
    return summary.table.number == "search" and len(summary.rows) == 1


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


def arms(summary: Summary, study: Study, links: Mapping[str, str], width: float = WIDTH) -> Drawing:
    """Point-range of the table's ranking metric: every seed, mean with its interval, the published value beside it."""
    table, rows = summary.table, summary.rows
    narrow = width <= COLUMN  # names then stand above their points instead of beside them
    fig, ax = axes((0.75 if narrow else 0.62) + (0.42 if narrow else 0.36) * len(rows), width)
    words = f"{heading(summary)}: {title(table.metric)} of each arm with every seed and the published value"
    drawing = Drawing(f"table-{table.slug}", words, fig)
    middle, below, above = (0.12, 0.34, -0.06) if narrow else (-0.08, 0.2, -0.3)
    shown: list[float] = []
    for y, row in enumerate(rows):
        cell = row.cells[table.metric]
        if y % 2 == 0:
            ax.axhspan(y - 0.5, y + 0.5, color=RULE, alpha=0.22, lw=0)
        if cell.n:
            if not math.isnan(cell.interval.low):
                ax.plot(
                    [max(0, cell.interval.low), min(100, cell.interval.high)],
                    [y + middle] * 2,
                    color=BLUE,
                    lw=2.4,
                    solid_capstyle="butt",
                    alpha=0.55,
                )
                shown += [max(0, cell.interval.low), min(100, cell.interval.high)]
            runs = study.of_arm(row.arm).set_index("seed")["key"]
            urls = [links.get(runs[s], "#runs") for s, _ in cell.values]
            dots = ax.scatter(
                [v for _, v in cell.values],
                [y + below] * cell.n,
                s=10 if narrow else 17,
                facecolors="none",
                edgecolors=BLUE,
                linewidths=1,
                zorder=3,
            )
            dots.set_urls(urls)
            drawing.tips |= {u: f"{row.arm.name}, seed {s}: {v:.2f} %" for u, (s, v) in zip(urls, cell.values, strict=True)}
            ax.scatter([cell.mean], [y + middle], s=20 if narrow else 34, color=BLUE, zorder=4)
            shown += [v for _, v in cell.values]
        if cell.published and not cell.published.word:
            spread = 0.0 if math.isnan(cell.published.std) else cell.published.std
            ax.errorbar(
                [cell.published.mean], [y + above], xerr=[spread], fmt="D", ms=3.2 if narrow else 4.2, color=RED, elinewidth=1.2, zorder=3
            )
            shown += [cell.published.mean - spread, cell.published.mean + spread]
    low, high = (min(shown), max(shown)) if shown else (0.0, 100.0)
    margin = max(0.06 * (high - low), 0.25)
    ax.set_xlim(max(0, low - margin), min(100.5, high + margin))
    for y, row in enumerate(rows):
        cell = row.cells[table.metric]
        shown_mean = plus_minus(cell) or "–"
        size = 6.8 if narrow else 8.2
        ax.text(1.02, y, shown_mean, transform=ax.get_yaxis_transform(), va="center", fontsize=size, color=INK if cell.n else MUTED)
        if narrow:
            name = ax.text(0.012, y - 0.34, short(row.arm.name, 46), transform=ax.get_yaxis_transform(), va="center", fontsize=6.8)
            name.set_in_layout(False)
        remark = row.state if not cell.n else ""
        if cell.published and cell.published.word:
            remark = f"{remark} · published: {cell.published.word}".strip(" ·")
        if remark:
            ax.text(
                0.012,
                y + (0.12 if narrow else 0.02 if not cell.n else 0.34),
                short(remark, 44 if narrow else 90),
                transform=ax.get_yaxis_transform(),
                va="center",
                fontsize=6.2 if narrow else 7.6,
                color=MUTED,
                style="italic",
                clip_on=True,
            ).set_in_layout(False)
    if narrow:
        ax.set_yticks([])
    else:
        ax.set_yticks(range(len(rows)), [short(r.arm.name) for r in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(f"{title(table.metric)}, %")
    handles = [
        ax.scatter([], [], s=34, color=BLUE, label="mean, 95 % interval"),
        ax.scatter([], [], s=17, facecolors="none", edgecolors=BLUE, label="one seed"),
    ]
    if any(r.cells[table.metric].published for r in rows):
        handles.append(ax.scatter([], [], s=17, marker="D", color=RED, label="published, standard deviation"))
    fig.legend(handles=handles, loc="outside upper center", ncols=2 if narrow else 3, handletextpad=0.3, columnspacing=1.4)
    return drawing


def training(study: Study, name: str, words: str, rows: list[Row], curves: pd.DataFrame, width: float = WIDTH) -> Drawing | None:
    """Loss and intermediate score of each stage by epoch, the learning rate and the age of the queue's keys where they were recorded:
    mean over seeds per arm with the band from lowest to highest. curves: the history of the rows' runs."""
    narrow = width <= COLUMN  # a paper's column has no room for what was merely set
    measures = list(dict.fromkeys(("loss", study.intermediate, study.metric, *(() if narrow else ("learning_rate", "queue_age")))))
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
    words_of = {"loss": "loss", "learning_rate": "learning rate", "queue_age": "age of queue keys, steps"}
    for ax, (stage, measure) in zip(axes.flat, panels, strict=False):
        for i, row in enumerate(rows):
            part = curves[(curves["stage"] == stage) & (curves["config_hash"] == row.arm.config_hash) & curves[measure].notna()]
            if part.empty:
                continue
            by = part.groupby("epoch")[measure].agg(["mean", "min", "max"]) * (1 if measure in words_of else 100)
            color = SERIES[i % len(SERIES)]
            label = short(row.arm.name, 40)
            ax.plot(by.index, by["mean"], color=color, ls=DASHES[(i // 2) % 4], label=label, marker="o" if len(by) == 1 else "")
            ax.fill_between(by.index, by["min"], by["max"], color=color, alpha=0.13, lw=0)
        shown = words_of.get(measure, f"{title(measure)}, %")
        ax.set_title(f"{short(stage, 20)}: {shown}", fontsize=7 if narrow or columns == 3 else 8.5, loc="left", color=INK)
        ax.set_xlabel("epoch", labelpad=1)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
        if measure in ("learning_rate", "queue_age"):
            ax.set_ylim(bottom=0)
        ax.grid(axis="y")
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_axis_off()
    handles: dict[str, Any] = {}
    for ax in axes.flat:
        handles |= dict(zip(ax.get_legend_handles_labels()[1], ax.get_legend_handles_labels()[0], strict=True))
    fig.legend(handles=list(handles.values()), labels=list(handles), loc="outside lower center", ncols=1 if narrow else 2)
    return drawing


def confusion(study: Study, best: Best | None, external: str = "", width: float = WIDTH) -> Drawing | None:
    """Rates by true class with counts, summed over the seeds of the best configuration; the test part where there is one, or an external set."""
    found = confusion_of(study, best, external)
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


def confusion_of(study: Study, best: Best | None, external: str = "") -> tuple[str, np.ndarray] | None:
    """The part and the summed matrix of the best configuration; None where no run recorded one."""
    for part in ((f"external_{external}",) if external else ("test", "val")) if best else ():
        matrix = study.confusion(best.keys, part) if best else None
        if matrix is not None:
            return part, matrix
    return None
