"""Figures of a study. In: a Study and its summaries. Out: `Drawing`s: arms of each table, training curves, confusion matrix, and the search's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from analysis import search_figures
from analysis.choice import Best
from analysis.drawing import BLUE, DASHES, INK, MUTED, PAPER, RED, RULE, SERIES, WIDTH, Drawing, axes, short, style
from analysis.search import importances
from analysis.study import Study, plural
from analysis.summary import Summary, title
from analysis.tables import heading, plus_minus


def draw(
    study: Study, trials: pd.DataFrame, summaries: tuple[Summary, ...], best: Best | None, links: Mapping[str, str]
) -> tuple[Drawing, ...]:
    """All figures for which the study has data. links: record key -> address of the run in the report."""
    found = importances(study, trials)
    with style():
        drawings = [arms(summary, study, links) for summary in summaries if summary.rows]
        parts: list[Callable[[], Drawing | None]] = [
            lambda: search_figures.history(study, trials, links),
            lambda: search_figures.curves(study, trials, links),
            lambda: search_figures.importance(found),
            lambda: search_figures.slices(study, trials, found, links),
            lambda: search_figures.parallel(study, trials),
            lambda: search_figures.timeline(study, links),
            lambda: training(study, summaries),
            lambda: confusion(study, best),
        ]
        drawings += [d for part in parts if (d := part()) is not None]
    return tuple(drawings)


def arms(summary: Summary, study: Study, links: Mapping[str, str]) -> Drawing:
    """Point-range of the table's ranking metric: every seed, mean with its interval, the published value beside it."""
    table, rows = summary.table, summary.rows
    fig, ax = axes(0.62 + 0.36 * len(rows))
    words = f"{heading(summary)}: {title(table.metric)} of each arm with every seed and the published value"
    drawing = Drawing(f"table-{table.slug}", words, fig)
    shown: list[float] = []
    for y, row in enumerate(rows):
        cell = row.cells[table.metric]
        if y % 2 == 0:
            ax.axhspan(y - 0.5, y + 0.5, color=RULE, alpha=0.22, lw=0)
        if cell.n:
            if not math.isnan(cell.interval.low):
                ax.plot(
                    [max(0, cell.interval.low), min(100, cell.interval.high)],
                    [y - 0.08] * 2,
                    color=BLUE,
                    lw=2.4,
                    solid_capstyle="butt",
                    alpha=0.55,
                )
                shown += [max(0, cell.interval.low), min(100, cell.interval.high)]
            runs = study.of_arm(row.arm).set_index("seed")["key"]
            urls = [links.get(runs[s], "#runs") for s, _ in cell.values]
            dots = ax.scatter(
                [v for _, v in cell.values], [y + 0.2] * cell.n, s=17, facecolors="none", edgecolors=BLUE, linewidths=1, zorder=3
            )
            dots.set_urls(urls)
            drawing.tips |= {u: f"{row.arm.name}, seed {s}: {v:.2f} %" for u, (s, v) in zip(urls, cell.values, strict=True)}
            ax.scatter([cell.mean], [y - 0.08], s=34, color=BLUE, zorder=4)
            shown += [v for _, v in cell.values]
        if cell.published and not cell.published.word:
            spread = 0.0 if math.isnan(cell.published.std) else cell.published.std
            ax.errorbar([cell.published.mean], [y - 0.3], xerr=[spread], fmt="D", ms=4.2, color=RED, elinewidth=1.2, zorder=3)
            shown += [cell.published.mean - spread, cell.published.mean + spread]
    low, high = (min(shown), max(shown)) if shown else (0.0, 100.0)
    margin = max(0.06 * (high - low), 0.25)
    ax.set_xlim(max(0, low - margin), min(100.5, high + margin))
    for y, row in enumerate(rows):
        cell = row.cells[table.metric]
        ax.text(
            1.02, y, plus_minus(cell) or "–", transform=ax.get_yaxis_transform(), va="center", fontsize=8.2, color=INK if cell.n else MUTED
        )
        remark = row.state if not cell.n else ""
        if cell.published and cell.published.word:
            remark = f"{remark} · published: {cell.published.word}".strip(" ·")
        if remark:
            ax.text(
                0.012,
                y + (0.02 if not cell.n else 0.34),
                short(remark, 90),
                transform=ax.get_yaxis_transform(),
                va="center",
                fontsize=7.6,
                color=MUTED,
                style="italic",
                clip_on=True,
            ).set_in_layout(False)
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
    fig.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.3, columnspacing=1.4)
    return drawing


def training(study: Study, summaries: tuple[Summary, ...], most: int = 8) -> Drawing | None:
    """Loss of each stage and the intermediate score by epoch: mean over seeds per arm with the band from lowest to highest."""
    arms: dict[str, tuple[str, tuple[str, ...]]] = {}
    for summary in summaries:
        for row in summary.rows:
            if row.keys and row.counts["completed"] + row.counts["diverged"]:
                arms.setdefault(row.arm.config_hash, (row.arm.name, row.keys))
    curves = study.history(k for _, keys in list(arms.values())[:most] for k in keys)
    stages = [s for s in dict.fromkeys(curves["stage"])]
    panels = [
        (s, m) for s in stages for m in ("loss", study.intermediate) if m in curves and curves.loc[curves["stage"] == s, m].notna().any()
    ]
    if not panels:
        return None
    columns = min(2, len(panels))
    lines = math.ceil(len(panels) / columns)
    fig = Figure(figsize=(WIDTH, 0.5 + 2.1 * lines), layout="constrained")
    axes = fig.subplots(lines, columns, squeeze=False)
    drawing = Drawing("training", "Training curves by arm: mean over seeds, band from the lowest to the highest seed", fig)
    for ax, (stage, measure) in zip(axes.flat, panels, strict=False):
        for i, (config_hash, (name, _)) in enumerate(list(arms.items())[:most]):
            part = curves[(curves["stage"] == stage) & (curves["config_hash"] == config_hash) & curves[measure].notna()]
            if part.empty:
                continue
            by = part.groupby("epoch")[measure].agg(["mean", "min", "max"]) * (1 if measure == "loss" else 100)
            color = SERIES[i % len(SERIES)]
            ax.plot(by.index, by["mean"], color=color, ls=DASHES[(i // 2) % 4], label=short(name, 40), marker="o" if len(by) == 1 else "")
            ax.fill_between(by.index, by["min"], by["max"], color=color, alpha=0.13, lw=0)
        ax.set_title(f"{stage}: {'loss' if measure == 'loss' else title(measure) + ', %'}", fontsize=8.5, loc="left", color=INK)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.grid(axis="y")
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_axis_off()
    handles: dict[str, Any] = {}
    for ax in axes.flat:
        handles |= dict(zip(ax.get_legend_handles_labels()[1], ax.get_legend_handles_labels()[0], strict=True))
    fig.legend(handles=list(handles.values()), labels=list(handles), loc="outside lower center", ncols=2)
    return drawing


def confusion(study: Study, best: Best | None) -> Drawing | None:
    """Rates by true class with counts, summed over the seeds of the best configuration; test part where there is one."""
    found = confusion_of(study, best)
    if found is None or best is None:
        return None
    part, matrix = found
    count = len(matrix)
    names = study.classes if len(study.classes) == count else tuple(str(i) for i in range(count))
    rates = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(WIDTH, 1.7 + 0.75 * count) if count <= 8 else WIDTH
    fig = Figure(figsize=(side, 0.82 * side), layout="constrained")
    ax = fig.subplots()
    words = f"Confusion matrix of {best.name}, {part} part, summed over {plural(len(best.keys), 'seed')}; rows are the truth"
    drawing = Drawing("confusion", words, fig)
    shades = matplotlib.colormaps["Blues"]
    for i in range(count):
        for j in range(count):
            shade = shades(0.04 + 0.86 * float(rates[i, j]))
            ax.add_patch(Rectangle((j, i), 1, 1, facecolor=shade, edgecolor=PAPER, lw=1))
            if count <= 8 or matrix[i, j]:
                light = 0.2126 * shade[0] + 0.7152 * shade[1] + 0.0722 * shade[2] > 0.5
                ink = "#111214" if light else "#fcfcfd"  # not INK: the cell keeps its colour in the dark theme, so must its text
                label = f"{100 * rates[i, j]:.1f} %\n{matrix[i, j]:.0f}" if count <= 8 else f"{100 * rates[i, j]:.0f}"
                ax.text(j + 0.5, i + 0.5, label, ha="center", va="center", color=ink, fontsize=8.5 if count <= 8 else 5.5)
    ax.set_xlim(0, count)
    ax.set_ylim(count, 0)
    ax.set_xticks(
        np.arange(count) + 0.5, [short(n, 22) for n in names], rotation=0 if count <= 4 else 45, ha="center" if count <= 4 else "right"
    )
    ax.set_yticks(np.arange(count) + 0.5, [short(n, 22) for n in names])
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    for spine in ax.spines.values():
        spine.set_visible(False)
    return drawing


def confusion_of(study: Study, best: Best | None) -> tuple[str, np.ndarray] | None:
    """The part and the summed matrix of the best configuration; None where no run recorded one."""
    for part in ("test", "val") if best else ():
        matrix = study.confusion(best.keys, part) if best else None
        if matrix is not None:
            return part, matrix
    return None
