"""Score against size: which configurations no other beats in both. In: a Study and its trials. Out: the front, and a `Drawing` of it; None
where the study asked for one objective alone."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from analysis.drawing import BLUE, MUTED, ORANGE, Drawing, axes
from analysis.study import Study, mapping
from analysis.summary import title

UNITS = {"parameters": (1e6, "parameters of the model, millions")}


def second(study: Study) -> str:
    """The name of what the search makes small beside its score; '' for none."""
    name = mapping(mapping(study.asked.get("objective")).get("second")).get("metric")
    return name if isinstance(name, str) else ""


def front(study: Study, trials: pd.DataFrame) -> pd.DataFrame:
    """The completed trials with both values, columns trial, key, seed, score (per cent), size, best (no other is at least as good in both and
    better in one); by size, then score. Empty where there is no second objective."""
    name = second(study)
    columns = ["trial", "key", "seed", "score", "size", "best"]
    if not name or name not in study.usable or trials.empty:
        return pd.DataFrame(columns=columns)
    size = study.usable.set_index("key")[name]
    rows = trials[(trials["status"] == "completed") & trials["score"].notna()]
    rows = rows.assign(size=rows["key"].map(size))
    rows = rows[rows["size"].notna()].sort_values(["size", "score", "trial"], ascending=[True, not study.maximize, True])
    sign = 1 if study.maximize else -1
    kept, reached = [], float("-inf")
    for _, group in rows.groupby("size", sort=True):
        top = (sign * group["score"]).max()
        kept += list((sign * group["score"] == top) & (top > reached))
        reached = max(reached, top)
    return rows.assign(best=kept)[columns].reset_index(drop=True)


def drawing(study: Study, trials: pd.DataFrame, links: Mapping[str, str]) -> Drawing | None:
    """Each trial by size and score; the front as a line."""
    points = front(study, trials)
    if points.empty:
        return None
    scale, words = UNITS.get(second(study), (1.0, second(study)))
    fig, ax = axes(2.9)
    out = Drawing("pareto", f"{title(study.metric)} against {words.split(',')[0]}: on the line, no other trial is better in both", fig)
    best = points[points["best"]]
    ax.step(best["size"] / scale, best["score"], where="post", color=ORANGE, lw=1.6, zorder=2, label="front")
    for some, color, word in ((points[~points["best"]], MUTED, "beaten in both"), (best, BLUE, "on the front")):
        if len(some):
            dots = ax.scatter(some["size"] / scale, some["score"], s=30, color=color, linewidths=0, zorder=3, label=word)
            urls = [links.get(key, "#runs") for key in some["key"]]
            dots.set_urls(urls)
            for url, trial, score, size in zip(urls, some["trial"], some["score"], some["size"], strict=True):
                out.tips.setdefault(url, f"trial {trial}: {score:.2f} %, {size:,.0f} {second(study)}")
    if points["size"].max() > 4 * points["size"].min():
        ax.set_xscale("log")
    ax.set_xlabel(words)
    ax.set_ylabel(f"{title(study.metric)}, %")
    ax.grid(axis="y")
    fig.legend(loc="outside upper center", ncols=3)
    return out
