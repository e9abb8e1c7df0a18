"""A study as typed tables, for a notebook and for the files of a paper. In: a Study. Out: pandas DataFrames: numbers are numbers, what
takes few values is a category, times are times. `results` is the one frame that csv, LaTeX, macros and the check of a paper are made from."""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import artefacts
from analysis.crossed import Estimate
from analysis.statistics import NONE
from analysis.study import STATUSES, Study
from analysis.summary import Cell, Row, Summary

_CATEGORIES = ("study", "procedure", "data_hash", "commit", "device", "worker", "reason", "codes", "versions", "error_kind")
_BULKY = ["stages_reused", "stage_seconds", "stage_hashes"]
_RESULTS: dict[str, tuple[str, ...]] = {
    "category": ("table", "arm", "metric", "unit", "split", "interval_over", "baseline_arm", "gain_interval_over", "shown"),
    "Int64": ("n", "images", "cases", "pairs", "comparisons", *STATUSES, "waiting"),
    "string": ("key", "published_word", "verdict", "reason"),
    "bool": ("best", "is_baseline", "published_is_compared"),
}


def runs(study: Study) -> pd.DataFrame:
    """A row for each run of the study, metrics as fractions, parameters as `param.<name>`; runs of other data have `known` False."""
    frame = study.records.drop(columns=_BULKY)
    texts = {name: frame[name].map(_whole) for name in frame if frame[name].dtype == object}
    frame = frame.assign(**{str(name): values for name, values in texts.items()})
    frame["arms"] = frame["arms"].map("; ".join).astype("string")
    for name in ("started", "ended"):
        frame[name] = pd.to_datetime(frame[name], errors="coerce", utc=True, format="ISO8601")
    frame = frame.astype({"key": "string", "config_hash": "string", "checkpoint": "string", "error": "string", "dirty": "boolean"})
    return _typed(frame)


def epochs(study: Study) -> pd.DataFrame:
    """A row for each reported epoch of each run: key, seed, config_hash, stage, epoch and what was reported."""
    frame = study.history(study.records["key"])
    return frame.astype({"key": "string", "config_hash": "string", "seed": "int64", "epoch": "int64", "stage": "category"})


def trials(study: Study) -> pd.DataFrame:
    """A row for each trial of the search: its run, its status, its score in per cent, and the searched parameters that count in it."""
    from analysis.search import trial_table

    return _typed(trial_table(study).astype({"key": "string", "config_hash": "string"}))


def predictions(study: Study) -> pd.DataFrame:
    """A row for each image that a completed run was judged on: key, config_hash, seed, part, index, file, patient, truth, predicted, right,
    confidence and `probability.<class>`. What a run left that cannot be read is a Python warning, and the rest is there."""
    done = study.usable[study.usable["status"] == "completed"]
    parts = {"val": "", "test": "", **{f"external_{name}": name for name in study.external_images}}
    names: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    found = []
    for key, config_hash, seed in zip(done["key"], done["config_hash"], done["seed"], strict=True):
        try:
            for part, where in parts.items():
                given = artefacts.predictions(study, key, part)
                if given is None:
                    continue
                if where not in names:
                    names[where] = artefacts.files(study, where), artefacts.patients(study, where)
                files, patients = names[where]
                classes = study.classes if len(study.classes) == given.probability.shape[1] else range(given.probability.shape[1])
                words = np.array([_whole(str(c)) for c in classes], dtype=object)
                frame = pd.DataFrame({"key": key, "config_hash": config_hash, "seed": seed, "part": part, "index": given.index})
                frame["file"], frame["patient"] = _at(files, given.index), _at(patients, given.index)
                frame["truth"], frame["predicted"] = words[given.label], words[given.predicted]
                frame["right"], frame["confidence"] = given.label == given.predicted, given.confidence
                shares = pd.DataFrame(given.probability.astype(np.float32), columns=[f"probability.{word}" for word in words])
                found.append(pd.concat([frame, shares], axis=1))
        except artefacts.Damaged as error:
            warnings.warn(f"{error}: it is left out", stacklevel=3)
    if not found:
        columns = ["key", "config_hash", "seed", "part", "index", "file", "patient", "truth", "predicted", "right", "confidence"]
        return pd.DataFrame(columns=columns)
    frame = pd.concat(found, ignore_index=True)
    return frame.astype({k: "category" for k in ("key", "config_hash", "part", "file", "patient", "truth", "predicted")})


def _at(names: Sequence[str], index: np.ndarray) -> list[str | None]:
    return [_whole(names[i]) or None if 0 <= i < len(names) else None for i in index.tolist()]


def results(summaries: Iterable[Summary]) -> pd.DataFrame:
    """A row for each cell of each table, per cent, in full precision; what was not measured is missing, never a number. `key` is its name in
    numbers.tex. best: the best mean of the column; shown: `better` or `worse` than the baseline arm where it is shown."""
    rows = [_cell(s, row, cell, key) for s in summaries for row, key in zip(s.rows, _names(s), strict=True) for cell in row.cells.values()]
    types = {name: kind for kind, names in _RESULTS.items() for name in names}
    rows = [{name: _whole(value) for name, value in row.items()} for row in rows]
    frame = pd.DataFrame(rows, columns=None if rows else list(types))
    return frame.astype(types | {str(name): "float64" for name in frame if name not in types})


def _cell(summary: Summary, row: Row, cell: Cell, arm: str) -> dict[str, object]:
    theirs, gained = cell.published, cell.difference_to
    low, high = cell.gain_interval if gained else NONE
    alone = gained.interval() if gained else NONE
    metric = cell.metric.removeprefix("test_")
    return {
        "table": summary.table.number,
        "arm": row.arm.name,
        "metric": cell.metric,
        "key": f"{slug(summary.table.number)}/{arm}/{slug(metric)}",
        "unit": "%",
        "n": cell.n,
        "images": (row.images or None) if cell.metric == summary.table.metric else None,
        "split": row.split or None,
        "mean": cell.mean,
        "std": cell.std,
        "ci95_low": cell.interval.low,
        "ci95_high": cell.interval.high,
        "interval_over": over(cell.level) or None,
        "cases": cell.level.cases or None,
        "best": cell.bold,
        "published_mean": theirs.mean if theirs else math.nan,
        "published_std": theirs.std if theirs else math.nan,
        "published_word": (theirs.word or None) if theirs else None,
        "published_is_compared": bool(theirs and theirs.compared),
        "difference_to_published": cell.difference,
        "verdict": cell.verdict or None,
        "baseline_arm": summary.baseline,
        "is_baseline": row.is_baseline,
        "pairs": cell.pairs or None,
        "gain_over_baseline": cell.gain,
        "gain_simultaneous95_low": low,
        "gain_simultaneous95_high": high,
        "gain_error": gained.error if gained else math.nan,
        "gain95_low": alone.low,
        "gain95_high": alone.high,
        "gain_interval_over": (over(gained) or None) if gained else None,
        "comparisons": cell.comparisons or None,
        "p_adjusted": cell.p,
        "shown": cell.shown or None,
        "probability_of_other_sign": cell.wrong,
        **row.counts,
        "waiting": row.waiting,
        "reason": "; ".join(row.reasons) or None,
    }


def _whole(value: Any) -> Any:
    """A text as far as UTF-8, which pandas' texts are, can hold it: half a character becomes a question mark."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def over(level: Estimate) -> str:
    """What an interval is over; '' where there is none."""
    if level.lost or (level.seeds < 2 and not level.cases):
        return ""
    if level.seeds < 2:
        return f"{level.unit}, one training"
    return "seeds" if level.cases < 2 else f"seeds and {level.unit}"


def slug(text: str) -> str:
    """ASCII letters, digits and single hyphens, in small letters: `MoCo + SupCon` -> `moco-supcon`; `x` where nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "x"


def _names(summary: Summary) -> list[str]:
    """A name for each arm of a table, all different."""
    given = [slug(row.arm.name) for row in summary.rows]
    for i, name in enumerate(given):
        number = 2
        while given[i] in given[:i]:
            given[i], number = f"{name}-{number}", number + 1
    return given


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Categories, and each parameter with the type that all of its values have."""
    out = {str(name): _parameter(frame[name]) for name in frame if str(name).startswith("param.")}
    out |= {name: frame[name].astype("category") for name in _CATEGORIES if name in frame}
    out["status"] = frame["status"].astype(pd.CategoricalDtype(list(STATUSES)))
    return frame.assign(**out)


def _parameter(values: pd.Series) -> pd.Series:
    kinds = {type(v) for v in values if v is not None and v == v}
    if kinds <= {bool} and kinds:
        return values.astype("boolean")
    if kinds <= {int} and kinds and all(abs(int(v)) < 2**63 for v in values.dropna()):
        return values.astype("Int64")
    if kinds <= {int, float}:
        return pd.to_numeric(values, errors="coerce").astype("float64")
    return values.map(lambda v: None if v is None else _whole(v if isinstance(v, str) else str(v))).astype("category")
