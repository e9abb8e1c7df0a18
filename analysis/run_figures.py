"""Figures of single runs: calibration, embedding map, heat maps, cells nearest to a cluster's centre, clusters by type. In: a Study and
`Beside`. Out: `Drawing`s; None or nothing where the runs left no such thing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.beside import Beside, class_names
from analysis.drawing import BLUE, COLUMN, INK, MUTED, PAPER, RED, SERIES, WIDTH, Drawing, draw_matrix, short
from analysis.inside import Shown, choose, heat_of, maps, overlay, seen_by
from analysis.study import Study, plural

_MARKS = ("o", "^", "s", "D", "v", "P", "X")  # with 7 colours 49 classes are told apart
_HEAT_ROWS = 24


def calibration(beside: Beside, width: float = WIDTH) -> Drawing | None:
    """Reliability diagram over the test predictions of the winner's runs, and how many there are in each bin."""
    found = beside.calibration
    if found is None or beside.pairing.other is None:
        return None
    narrow = width <= COLUMN
    side = min(width, 4.6)
    fig = Figure(figsize=(side, 1.12 * side), layout="constrained")
    ax, below = fig.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    pooled, at = found.pooled, np.arange(10) / 10 + 0.05
    ax.plot([0, 100], [0, 100], color=MUTED, lw=1, ls="--", label="accuracy = confidence")
    for i, run in enumerate(found.runs if len(found.runs) > 1 else ()):
        there = run.count > 0
        ax.plot(100 * run.confidence[there], 100 * run.accuracy[there], color=BLUE, lw=0.9, alpha=0.35, label="one run" if not i else None)
    there = pooled.count > 0
    x, y = 100 * pooled.confidence[there], 100 * pooled.accuracy[there]
    ax.vlines(x, np.minimum(x, y), np.maximum(x, y), color=RED, lw=1.6, alpha=0.7, label="gap")
    word = "all runs, by bin" if len(found.runs) > 1 else "by bin"
    ax.plot(x, y, color=BLUE, marker="o", ms=3.2 if narrow else 4.5, lw=1.6, label=word)
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 102)
    ax.set_ylabel("accuracy, %")
    ax.grid()
    ax.legend(loc="upper left")
    mean = float(np.mean(found.errors))
    spread = f" ± {np.std(found.errors, ddof=1):.2f}" if len(found.errors) > 1 else ""
    ax.text(0.97, 0.04, f"ECE {mean:.2f}{spread}", transform=ax.transAxes, ha="right", fontsize=7.5 if narrow else 9.5, color=INK)
    below.bar(100 * at, 100 * pooled.count / pooled.count.sum(), width=9.2, color=BLUE, alpha=0.55, lw=0)
    below.set_ylabel("share, %")
    below.set_xlabel("confidence, %")
    below.grid(axis="y")
    runs = plural(len(found.runs), "run")
    name = beside.pairing.other.name if beside.pairing.reference is None else ""
    words = f"Reliability of the winner's{' (' + name + ')' if name else ''} test predictions over {runs}: accuracy by confidence, 10 bins of equal width"
    return Drawing("calibration", words, fig)


def of_artefacts(study: Study, beside: Beside) -> list[Drawing | None]:
    """Embedding map, heat maps, clusters by type and nearest cells, of the first seed for which both sides (or the one) left them."""
    sides, seen = seen_by(study, beside)
    out: list[Drawing | None] = []
    for name, make, alone in (
        ("embedding", _embedding, False),
        ("heat", _heat, False),
        ("cluster_by_type", _clusters, True),
        ("nearest_image", _nearest, True),
    ):
        shown, seed = choose(sides, seen, name, alone)
        out.append(make(study, shown, seed) if shown else None)
    return out


def _embedding(study: Study, shown: Shown, seed: int) -> Drawing | None:
    """The same test images side by side for the arms, coloured by class, and by cluster beside it where there are clusters."""
    panels = maps(study, shown)
    if not panels:
        return None
    columns = min(2, len(panels))
    lines = math.ceil(len(panels) / columns)
    listed = [": by cluster" not in name and len(set(label.tolist())) <= 8 for name, _, label, _, _ in panels]
    few = any(listed)
    fig = Figure(
        figsize=(WIDTH if columns == 2 else 4.4, (3.5 if columns == 2 else 4.2) * lines + (0.35 if few else 0)), layout="constrained"
    )
    axes = fig.subplots(lines, columns, squeeze=False)
    groups: dict[str, Any] = {}
    for ax, (name, map_, label, names, _), one in zip(axes.flat, panels, listed, strict=False):
        _scatter(ax, map_, label, names, one)
        ax.set_title(short(name, 48), fontsize=8.5, loc="left", color=INK)
        groups |= dict(zip(ax.get_legend_handles_labels()[1], ax.get_legend_handles_labels()[0], strict=True))
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_axis_off()
    if few and groups:
        fig.legend(handles=list(groups.values()), labels=list(groups), loc="outside lower center", ncols=4, handletextpad=0.2)
    what = "the same test images side by side" if len(shown) > 1 else "test images"
    words = f"Embedding map (t-SNE, seed {seed}) of {', '.join(n for n, _ in shown)}: {len(panels[0][1]):,} points, {what}. Distances between far groups mean little"
    return Drawing("embedding", words, fig)


def _scatter(ax: Axes, map_: np.ndarray, label: np.ndarray, names: tuple[str, ...], few: bool) -> None:
    for i in sorted(set(label.tolist())):
        some = map_[label == i]
        name = names[i] if 0 <= i < len(names) else str(i)
        ax.scatter(
            some[:, 0],
            some[:, 1],
            s=11,
            color=SERIES[i % 7],
            marker=_MARKS[(i if few else i // 7) % len(_MARKS)],
            linewidths=0,
            alpha=0.75,
            label=short(name, 22) if few else None,
        )
    if not few:
        for i in sorted(set(label.tolist())):
            x, y = np.median(map_[label == i], axis=0)
            name = names[i] if 0 <= i < len(names) else str(i)
            box = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": SERIES[i % 7], "lw": 0.9, "alpha": 0.9}
            ax.text(x, y, short(name, 14), fontsize=6.5, ha="center", va="center", bbox=box, zorder=5)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlim(-0.04, 1.04)
    ax.set_ylim(-0.04, 1.04)
    for spine in ax.spines.values():
        spine.set_visible(True)


# --- images ---------------------------------------------------------------------------------------------------------------------------


def _close() -> ConstrainedLayoutEngine:
    """Images with little between them."""
    return ConstrainedLayoutEngine(w_pad=0.015, h_pad=0.015, wspace=0.01, hspace=0.01)


def _heat(study: Study, shown: Shown, seed: int) -> Drawing | None:
    """A row for each image: the image, and where each arm looks. Blocks side by side where there are many rows."""
    shown = heat_of(shown)
    if not shown:
        return None
    first = shown[0][1]
    order = np.argsort(first["heat_label"], kind="stable")[:_HEAT_ROWS]
    wide = 1 + len(shown)
    blocks = 1 if len(order) <= 4 else 2 if len(order) <= 10 or (wide > 2 and len(order) <= 12) else 3
    lines = math.ceil(len(order) / blocks)
    columns = blocks * wide
    cell = min(1.15, WIDTH / columns)
    fig = Figure(figsize=(min(WIDTH, cell * columns + 0.3), (cell + 0.24) * lines + 0.35), layout=_close())
    axes = fig.subplots(lines, columns, squeeze=False)
    names = class_names(study, len(study.classes))

    def word(i: int) -> str:
        return short(names[i], 13) if 0 <= i < len(names) else str(i)

    for ax in axes.flat:
        ax.set_axis_off()
    for place, row in enumerate(order):
        block, line = divmod(place, lines)
        image = first["heat_image"][row]
        truth = int(first["heat_label"][row])
        ax = axes[line, block * wide]
        ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        ax.set_title(word(truth), fontsize=6.5, pad=2, color=INK)
        for j, (_, arrays) in enumerate(shown, 1):
            ax, said = axes[line, block * wide + j], int(arrays["heat_prediction"][row])
            ax.imshow(overlay(image, arrays["heat"][row]))
            right = said == truth
            ax.set_title(("✓ " if right else "✗ ") + word(said), fontsize=6.5, pad=2, color=MUTED if right else RED)
    top = " | ".join(["image", *(short(n, 24) for n, _ in shown)])
    fig.suptitle(f"each block: {top}", fontsize=7.5, color=MUTED, x=0.01, ha="left")
    arms = " and ".join(n for n, _ in shown)
    return Drawing("heat", f"Where {arms} look (seed {seed}): true class above each image, prediction above each heat map", fig)


def _nearest(study: Study, shown: Shown, seed: int) -> Drawing | None:
    name, arrays = shown[0]
    images = arrays["nearest_image"]
    if images.ndim not in (4, 5) or not images.shape[0] * images.shape[1]:
        return None
    clusters, most = min(images.shape[0], 40), min(images.shape[1], 10)
    blocks = 1 if clusters <= 8 else 2
    lines = math.ceil(clusters / blocks)
    most = most if blocks == 1 else min(most, 6)
    columns = blocks * (most + 1)
    cell = min(0.75, WIDTH / columns)
    fig = Figure(figsize=(WIDTH, (cell + 0.05) * lines + 0.1), layout=_close())
    axes = fig.subplots(lines, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for i in range(clusters):
        block, line = divmod(i, lines)
        axes[line, block * (most + 1)].text(0.5, 0.5, f"cluster {i}", ha="center", va="center", fontsize=7, color=INK)
        for j in range(most):
            axes[line, block * (most + 1) + 1 + j].imshow(images[i, j], cmap="gray", vmin=0, vmax=255)
    return Drawing("nearest", f"The cells nearest to the centre of each cluster, {name}, seed {seed}; the nearest first", fig)


def _clusters(study: Study, shown: Shown, seed: int) -> Drawing | None:
    name, arrays = shown[0]
    matrix = arrays["cluster_by_type"].astype(np.float64)
    if (matrix < 0).any():
        return None
    types = class_names(study, matrix.shape[1])
    side = min(WIDTH, 2.0 + 0.75 * matrix.shape[1]) if max(matrix.shape) <= 8 else WIDTH
    fig = Figure(figsize=(side, 1.1 + (0.55 if max(matrix.shape) <= 8 else 0.26) * len(matrix)), layout="constrained")
    ax = fig.subplots()
    draw_matrix(ax, matrix, tuple(f"cluster {i}" for i in range(len(matrix))), types, False)
    ax.set_xlabel("type")
    ax.set_ylabel("")
    return Drawing("clusters", f"Cells of each type in each cluster: share of the cluster and count, {name}, seed {seed}", fig)
