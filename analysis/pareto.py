"""Score against size: which configurations no other beats in both. In: a Study and its trials. Out: the front;
nothing where the study asked for one objective alone."""

from __future__ import annotations

import pandas as pd

from analysis.study import Study, mapping

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
