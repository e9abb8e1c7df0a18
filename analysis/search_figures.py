"""Figures of a search. In: a Study. Out: `Drawing`s of its history, curves, importances, slices, parallel coordinates and slots; None without data."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.drawing import BLUE, INK, MUTED, ORANGE, PINK, RED, WIDTH, Drawing, axes, short
from analysis.search import Importance, Parameter, parameters
from analysis.study import STATUSES, Study, plural
from analysis.summary import title

_LINKED = 1_000  # points of a figure that are drawn one by one and lead to their run; more are drawn as one picture
_POINTS = 5_000
_CURVES = 150
_LINES = 400
_BARS = 3_000
STATUS_COLORS = {"completed": BLUE, "pruned": MUTED, "diverged": ORANGE, "collapsed": PINK, "failed": RED}


def history(study: Study, trials: pd.DataFrame, links: Mapping[str, str]) -> Drawing | None:
    """Score of each trial in order, and the best so far."""
    if trials.empty:
        return None
    fig, ax = axes(2.7)
    drawing = Drawing("search", f"Search history: {title(study.metric)} of each trial and the best so far", fig)
    done = trials[trials["score"].notna() & (trials["status"] == "completed")]
    if len(done):
        so_far = done["score"].cummax() if study.maximize else done["score"].cummin()
        last = max(float(trials["trial"].max()), float(done["trial"].iloc[-1]))
        ax.step([*done["trial"], last], [*so_far, so_far.iloc[-1]], where="post", color=ORANGE, lw=2, label="best so far", zorder=2)
    for status, mark in (("completed", "o"), ("pruned", "X")):
        some = trials[(trials["status"] == status) & trials["score"].notna()]
        if some.empty:
            continue
        word = "completed" if status == "completed" else f"pruned ({title(study.intermediate)} when stopped)"
        many = len(some) > _LINKED
        size, color = (8 if many else 30), STATUS_COLORS[status]
        dots = ax.scatter(
            some["trial"], some["score"], s=size, marker=mark, color=color, label=word, zorder=3, linewidths=0, rasterized=many
        )
        if not many:
            urls = [links.get(k, "#runs") for k in some["key"]]
            dots.set_urls(urls)
            for url, t, v, s in zip(urls, some["trial"], some["score"], some["seed"], strict=True):
                drawing.tips[url] = f"trial {t}, seed {s}, {status}: {v:.2f} %"
    lost = trials[trials["score"].isna()]
    if len(lost):
        where = ax.get_xaxis_transform()
        ax.plot(
            lost["trial"],
            [0.02] * len(lost),
            "|",
            ms=9,
            mew=2,
            color=RED,
            transform=where,
            label="diverged, collapsed or failed",
            rasterized=len(lost) > _LINKED,
        )
    ax.set_xlabel("trial")
    ax.set_ylabel(f"{title(study.metric)}, %")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    fig.legend(loc="outside upper center", ncols=4)
    return drawing


def curves(study: Study, trials: pd.DataFrame, links: Mapping[str, str]) -> Drawing | None:
    """What the pruner saw: the intermediate score of each trial by epoch, a cross where it was stopped."""
    if len(trials) < 2:
        return None
    shown = trials if len(trials) <= _CURVES else trials.iloc[np.unique(np.linspace(0, len(trials) - 1, _CURVES).astype(int))]
    told = study.history(shown["key"])
    if study.intermediate not in told:
        return None
    done = trials[(trials["status"] == "completed") & trials["score"].notna()].sort_values(
        ["score", "trial"], ascending=[not study.maximize, True]
    )
    top = done["key"].iloc[0] if len(done) else None
    fig, ax = axes(2.6)
    some = "" if len(shown) == len(trials) else f" ({len(shown)} of {len(trials)})"
    drawing = Drawing("search-curves", f"{title(study.intermediate)} of each trial by epoch{some}, with a cross where it was stopped", fig)
    labels = {"best": "best trial", "completed": "completed", "pruned": "pruned"}
    drawn = False
    for key, trial, status in zip(shown["key"], shown["trial"], shown["status"], strict=True):
        part = told[(told["key"] == key) & told[study.intermediate].notna()]
        if part.empty:
            continue
        kind = "best" if key == top else status
        color = ORANGE if kind == "best" else STATUS_COLORS[status]
        y = 100 * part[study.intermediate]
        strong = {"best": (2.2, 1.0, 4), "completed": (1.1, 0.6, 3)}.get(kind, (1.0, 0.7, 2))
        line = ax.plot(part["epoch"], y, color=color, lw=strong[0], alpha=strong[1], zorder=strong[2], label=labels.pop(kind, None))[0]
        line.set_url(links.get(key, "#runs"))
        drawing.tips.setdefault(links.get(key, "#runs"), f"trial {trial}, {status}")
        if status == "pruned":
            ax.plot(part["epoch"].iloc[-1], y.iloc[-1], "X", ms=5, color=color, mew=0, zorder=4)
        drawn = True
    if not drawn:
        return None
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"{title(study.intermediate)}, %")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    fig.legend(loc="outside upper center", ncols=3)
    return drawing


def importance(found: Sequence[Importance]) -> Drawing | None:
    """How much of the score each searched parameter explains alone, with its uncertainty and what chance would give."""
    if not found:
        return None
    fig, ax = axes(0.75 + 0.26 * len(found))
    words = (
        "Share of the score's variance that each parameter explains alone; bar: 95 % range over halves of the trials; line: what the largest of all "
        "stays below in 95 of 100 random orders of the scores"
    )
    drawing = Drawing("search-importance", words, fig)
    for y, i in enumerate(found):
        sure = i.share > i.chance
        ax.plot([100 * i.low, 100 * i.high], [y, y], color=BLUE if sure else MUTED, lw=2.2, alpha=0.5, solid_capstyle="butt")
        ax.plot(100 * i.share, y, "o", color=BLUE if sure else MUTED, ms=6)
    ax.axvline(100 * found[0].chance, color=RED, lw=1.2)
    ax.set_yticks(range(len(found)), [short(i.name, 30) for i in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("share of the variance of the score's rank explained, %")
    ax.grid(axis="x")
    handles = [
        ax.plot([], [], "o-", color=BLUE, label="above chance")[0],
        ax.plot([], [], "o-", color=MUTED, label="not above chance")[0],
        ax.plot([], [], "|", color=RED, ms=10, mew=1.5, label="the largest by chance (95 %)")[0],
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=3)
    return drawing


def slices(study: Study, trials: pd.DataFrame, found: Sequence[Importance], links: Mapping[str, str], most: int = 9) -> Drawing | None:
    """Score against each searched parameter; the most important first."""
    trials = trials[trials["score"].notna() & (trials["status"] == "completed")]
    order = {i.name: n for n, i in enumerate(found)}
    shown = [p for p in parameters(study) if _varied(trials[f"param.{p.name}"])]
    shown = sorted(shown, key=lambda p: order.get(p.name, len(order)))[:most]
    if len(trials) < 3 or not shown:
        return None
    columns = min(3, len(shown))
    lines = math.ceil(len(shown) / columns)
    fig = Figure(figsize=(WIDTH, 0.3 + 1.75 * lines), layout="constrained")
    grid = fig.subplots(lines, columns, squeeze=False, sharey=True)
    drawing = Drawing("search-slices", f"{title(study.metric)} of each completed trial against each searched parameter", fig)
    if len(trials) > _POINTS:
        trials = trials.iloc[np.unique(np.linspace(0, len(trials) - 1, _POINTS).astype(int))]
        drawing.words += f" ({len(trials)} of them)"
    many = len(trials) * len(shown) > 2 * _LINKED
    for ax, parameter in zip(grid.flat, shown, strict=False):
        part = trials[trials[f"param.{parameter.name}"].notna()]
        x, ticks = _positions(part[f"param.{parameter.name}"], parameter)
        if ticks:
            rng = np.random.default_rng(0)
            x = x + rng.uniform(-0.12, 0.12, len(x))  # so that equal choices do not hide each other
            ax.set_xticks(range(len(ticks)), [short(t, 11) for t in ticks], rotation=30 if len(ticks) > 3 else 0, fontsize=7.5)
            ax.set_xlim(-0.5, len(ticks) - 0.5)
        elif parameter.log:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if x.max() < 100 * x.min() else (1,), numticks=6))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            ax.xaxis.set_minor_locator(NullLocator())
        dots = ax.scatter(x, part["score"], s=6 if many else 18, color=BLUE, alpha=0.6, linewidths=0, rasterized=many)
        if not many:
            dots.set_urls([links.get(k, "#runs") for k in part["key"]])
            for key, trial, value, score in zip(part["key"], part["trial"], part[f"param.{parameter.name}"], part["score"], strict=True):
                drawing.tips.setdefault(links.get(key, "#runs"), f"trial {trial}: {score:.2f} %; {parameter.name} = {_show(value)}")
        ax.set_xlabel(short(parameter.name, 30))
        ax.grid(axis="y")
    for ax in list(grid.flat)[len(shown) :]:
        ax.set_axis_off()
    for row in grid:
        row[0].set_ylabel("%")
    return drawing


def parallel(study: Study, trials: pd.DataFrame) -> Drawing | None:
    """A line per trial through all searched parameters, coloured by its score."""
    trials = trials[trials["score"].notna() & (trials["status"] == "completed")]
    shown = [p for p in parameters(study) if _varied(trials[f"param.{p.name}"])][:10]
    if len(trials) < 3 or len(shown) < 2:
        return None
    all_trials = len(trials)
    trials = trials.sort_values(["score", "trial"], ascending=[study.maximize, True])
    if all_trials > _LINES:  # the best tenth and an even choice of the rest
        tenth = _LINES // 10
        trials = trials.iloc[
            [*np.unique(np.linspace(0, all_trials - tenth - 1, _LINES - tenth).astype(int)), *range(all_trials - tenth, all_trials)]
        ]
    fig, ax = axes(3.0)
    some = "" if len(trials) == all_trials else f" ({len(trials)} of {all_trials})"
    drawing = Drawing("search-parallel", f"Parallel coordinates of the completed trials{some}, coloured by {title(study.metric)}", fig)
    heights, score = [], trials["score"].to_numpy()
    for i, parameter in enumerate(shown):
        values = trials[f"param.{parameter.name}"]
        x, ticks = _positions(values, parameter)
        there = values.notna().to_numpy()
        if ticks:
            low, high, marks = -0.5, len(ticks) - 0.5, [(float(n), t) for n, t in enumerate(ticks)]
        else:
            low, high = (math.log(parameter.low), math.log(parameter.high)) if parameter.log else (parameter.low, parameter.high)
            x = np.log(x) if parameter.log else x
            marks = [(v, _show(math.exp(v) if parameter.log else v)) for v in (low, (low + high) / 2, high)]
        place = (x - low) / (high - low) if high > low else np.full(len(x), 0.5)
        height = np.full(len(trials), -0.12)  # below the axis: the parameter does not count there
        height[there] = place if len(place) == there.sum() else place[there]
        heights.append(height)
        ax.plot([i, i], [0, 1], color=MUTED, lw=0.8, zorder=3)
        for v, words in marks:
            y = (v - low) / (high - low) if high > low else 0.5
            ax.text(
                i + 0.03,
                y,
                short(words, 14),
                fontsize=6.8,
                color=INK,
                va="center",
                zorder=6,
                bbox={"boxstyle": "square,pad=0.1", "fc": "#fefefe", "ec": "none", "alpha": 0.8},
            )
    lowest, highest = float(score.min()), float(score.max())
    shades = matplotlib.colormaps["viridis"]
    norm = matplotlib.colors.Normalize(lowest, highest if highest > lowest else lowest + 1)
    table = np.stack(heights, axis=1)
    for line, value in zip(table, score, strict=True):
        ax.plot(range(len(shown)), line, color=shades(norm(value)), lw=0.9, alpha=0.75, zorder=2)
    if (table < 0).any():
        ax.text(-0.1, -0.12, "not set", fontsize=6.8, color=MUTED, va="center", ha="right")
    ax.set_xticks(range(len(shown)), [short(p.name, 16) for p in shown], rotation=20 if len(shown) > 5 else 0)
    ax.set_yticks([])
    ax.set_xlim(-0.35, len(shown) - 0.6)
    for spine in ax.spines.values():
        spine.set_visible(False)
    bar = fig.colorbar(matplotlib.cm.ScalarMappable(norm, shades), ax=ax, pad=0.01, fraction=0.03, label=f"{title(study.metric)}, %")
    bar.outline.set_visible(False)
    return drawing


def timeline(study: Study, links: Mapping[str, str]) -> Drawing | None:
    """What each slot did when; white is idle. Pauses of the whole study are cut out and marked."""
    runs, cuts, _ = worked(study)
    if runs.empty:
        return None
    slots = sorted(set(runs["slot"]), key=lambda name: (name.rpartition(" ")[0], int(name.rpartition(" ")[2])))
    height = min(0.24, 6 / len(slots))
    fig, ax = axes(0.85 + height * len(slots))
    drawing = Drawing("timeline", f"What each of {plural(len(slots), 'slot')} did when; white is idle time", fig)
    many = len(runs) > _BARS
    unit, name = (3600, "hours") if runs["to"].max() > 2 * 3600 else (60, "minutes") if runs["to"].max() > 120 else (1, "seconds")
    for y, slot in enumerate(slots):
        for status in STATUSES:
            part = runs[(runs["slot"] == slot) & (runs["status"] == status)]
            if part.empty:
                continue
            if many:
                part = _joined(part, runs["to"].max() / 1500)
            spans = [(a / unit, max(b - a, 1e-9) / unit) for a, b in zip(part["from"], part["to"], strict=True)]
            bars = ax.broken_barh(
                spans, (y - 0.38, 0.76), color=STATUS_COLORS[status], lw=0.6, ec="#fefefe" if not many else "none", rasterized=many
            )
            if not many:
                urls = [links.get(k, "#runs") for k in part["key"]]
                bars.set_urls(urls)
                for url, a, b in zip(urls, part["from"], part["to"], strict=True):
                    drawing.tips.setdefault(url, f"{status}, {b - a:.0f} s")
    for cut in cuts:
        ax.axvline(cut / unit, color=MUTED, lw=0.9, ls=":")
    ax.set_yticks(range(len(slots)), [f"slot {i + 1}" for i in range(len(slots))] if len(slots) <= 40 else [""] * len(slots))
    ax.set_ylim(len(slots) - 0.5, -0.5)
    ax.set_xlim(0, runs["to"].max() / unit)
    ax.set_xlabel(f"{name} since the first run began" + (", pauses cut out (dotted)" if cuts else ""))
    handles = [ax.barh([0], [0], color=STATUS_COLORS[s], label=s) for s in STATUSES if (runs["status"] == s).any()]
    fig.legend(handles=handles, loc="outside upper center", ncols=4)
    return drawing


def worked(study: Study) -> tuple[pd.DataFrame, list[float], float]:
    """Runs by slot in seconds since the first began (columns key, slot, status, from, to), where pauses of everybody were cut out, and the share
    of the slots' time in which they worked (nan without times). A slot is a place of a machine for one run at a time: a worker's process may be
    another after each run, so runs of a machine are laid into as many slots as were ever at work together."""
    rows = study.usable[["key", "worker", "status", "started", "ended"]]
    rows = rows.assign(begin=_clock(rows["started"]), end=_clock(rows["ended"]))
    rows = rows[rows["worker"].notna() & rows["begin"].notna() & (rows["end"] >= rows["begin"])].sort_values("begin", kind="stable")
    if rows.empty:
        return pd.DataFrame(columns=["key", "slot", "status", "from", "to"]), [], math.nan
    begin, end = rows["begin"].to_numpy(), rows["end"].to_numpy()
    reached = np.maximum.accumulate(end)
    gaps = np.append(0.0, np.maximum(0.0, begin[1:] - reached[:-1]))
    busy = float(reached[-1] - begin[0] - gaps.sum())
    long = gaps > max(120.0, 0.1 * busy)  # nobody worked: the study was stopped and continued
    removed = np.cumsum(np.where(long, gaps, 0.0))
    start = begin - begin[0] - removed
    slot = _slots([str(worker) for worker in rows["worker"]], begin, end)
    out = pd.DataFrame({"key": rows["key"], "slot": slot, "status": rows["status"], "from": start, "to": start + end - begin})
    span = float(out["to"].max()) * out["slot"].nunique()
    return out.reset_index(drop=True), [float(s) for s in start[long]], float((end - begin).sum() / span) if span > 0 else math.nan


def _slots(workers: Sequence[str], begin: np.ndarray, end: np.ndarray) -> list[str]:
    """Of each run, sorted by its beginning, a slot of its machine that is free, no more than the machine had processes: one of them does one run at
    a time. workers: `machine:process`. Times are whole seconds: one of slack."""
    machines = [worker.rpartition(":")[0] or worker for worker in workers]
    most = Counter(machine for machine, _ in set(zip(machines, workers, strict=True)))
    free: dict[str, list[tuple[float, int]]] = {}  # by machine a heap: until when each slot is taken, and its number
    out = []
    for machine, start, stop in zip(machines, begin.tolist(), end.tolist(), strict=True):
        places = free.setdefault(machine, [])
        if places and (places[0][0] <= start + 1 or len(places) == most[machine]):
            number = heapq.heapreplace(places, (stop, places[0][1]))[1]
        else:
            number = len(places) + 1
            heapq.heappush(places, (stop, number))
        out.append(f"{machine} {number}")
    return out


def _joined(part: pd.DataFrame, gap: float) -> pd.DataFrame:
    """The bars of one slot and status, those closer than `gap` seconds as one: thousands would be thinner than a line."""
    part = part.sort_values("from")
    new = (part["from"] - part["to"].shift(fill_value=-math.inf) > gap).cumsum()
    return part.groupby(new).agg({"key": "first", "from": "min", "to": "max"})


def _clock(texts: pd.Series) -> pd.Series:
    """Seconds since 1970; nan for what is no time."""
    times = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
    return (times - pd.Timestamp("1970-01-01", tz="UTC")).dt.total_seconds()


def _varied(values: pd.Series) -> bool:
    words = map(str, values)
    first = next(words, "")
    return any(word != first for word in words)


def _positions(values: pd.Series, parameter: Parameter) -> tuple[np.ndarray, list[str]]:
    """Where the values that are set stand on an axis, and the axis' words if it has words."""
    given = values.dropna()
    if parameter.choices:
        words = list(dict.fromkeys([*parameter.choices, *sorted(set(given.map(str)) - set(parameter.choices))]))
        return np.array([words.index(str(v)) for v in given], dtype=np.float64), words
    return pd.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64), []


def _show(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
