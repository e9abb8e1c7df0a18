"""What the page's script draws: runs with all that varies among them, curves, arms, the search, slots, calibration, the embedding map. In: a Study.
Out: plain values for one JSON block, rounded, nothing of the clock in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from analysis import artefacts, ledger, pareto, search, slots
from analysis.beside import Beside
from analysis.inside import choose, maps, seen_by
from analysis.numbers import short, show
from analysis.study import STATUSES, Study, finite, without_folders
from analysis.summary import Cell, Summary, title

FEWEST = 10  # predictions of a bin of the calibration that is shown: of fewer the accuracy is anything
RUNS_SHOWN = 400  # runs that the page holds; more would make it slow and no reader goes through them
_CURVES = 250  # runs whose curves it holds
_SET = ("seconds", "learning_rate", "queue_age")  # of a history: what was merely set, or is no measure
_WORDS = 200  # characters of a text in the block


def whole_view(
    study: Study, runs: pd.DataFrame, trials: pd.DataFrame, beside: Beside, found: ledger.Ledger | None, light: bool
) -> dict[str, Any]:
    """The block. runs: those of the table of runs, in its order. light: no embedding map is computed."""
    place = {key: i for i, key in enumerate(runs["key"])}
    return {
        "metric": study.metric,
        "maximize": study.maximize,
        "runs": _runs(study, runs),
        "curves": _curves(study, runs),
        "tables": [_table(s) for s in study.summaries if s.rows],
        "search": search.view(study, trials),
        "slots": slots.view(study, place),
        "calibration": _calibration(beside),
        "map": _map(study, beside, light),
        "ledger": ledger.view(study, found) if found else None,
    }


def runs_shown(study: Study, trials: pd.DataFrame) -> pd.DataFrame:
    """The runs of the tables and of the winner first, then those of the search, then the rest; no more than fit: of the search the best tenth, and an
    even choice of the others."""
    winner = study.winner
    wanted = dict.fromkeys([*(k for s in study.summaries for r in s.rows for k in r.keys), *(winner.keys if winner else ())])
    room = max(0, RUNS_SHOWN - len(wanted))
    tried = trials[~trials["key"].isin(list(wanted))]
    if len(tried) > room:
        best = tried.sort_values(["score", "trial"], ascending=[not study.maximize, True])["key"].iloc[: room // 10]
        others = tried[~tried["key"].isin(best)]
        even = (
            others["key"].iloc[np.unique(np.linspace(0, len(others) - 1, room - len(best)).astype(int))]
            if room > len(best)
            else others["key"].iloc[:0]
        )
        tried = tried[tried["key"].isin([*best, *even])]
    keys = list(dict.fromkeys([*wanted, *tried["key"], *study.records["key"].iloc[:RUNS_SHOWN]]))[:RUNS_SHOWN]
    return study.records[study.records["key"].isin(keys)].set_index("key", drop=False).loc[keys]


def named(study: Study, runs: pd.DataFrame) -> list[str]:
    """What each run is: its arms, its trial, or its configuration."""
    arms: dict[str, list[str]] = {}
    for table in study.tables:
        for arm in table.arms:
            arms.setdefault(arm.config_hash, []).append(f"{table.number}/{arm.name}")
    given = zip(runs["config_hash"], runs["trial"], strict=True)
    return ["; ".join(arms.get(h, [])) or (f"trial {int(t)}" if not pd.isna(t) else f"configuration {h[:8]}") for h, t in given]


def groups(study: Study, runs: pd.DataFrame) -> list[str]:
    """By what a run is coloured and switched on and off: its arm, or that it is one of the search."""
    arms: dict[str, str] = {}
    for table in study.tables:
        for arm in table.arms:
            arms.setdefault(arm.config_hash, arm.name)
    return [
        arms.get(h) or ("other runs" if pd.isna(t) else "trials of the search")
        for h, t in zip(runs["config_hash"], runs["trial"], strict=True)
    ]


def _runs(study: Study, runs: pd.DataFrame) -> dict[str, Any]:
    group = groups(study, runs)
    order = list(dict.fromkeys(group))
    rows = runs.to_dict("records")
    columns: list[dict[str, Any]] = [{"id": "trial", "name": "trial", "values": [None if pd.isna(v) else int(v) for v in runs["trial"]]}]
    metrics = [
        study.metric,
        study.intermediate,
        *(m for t in study.tables for m in t.metrics),
        *([pareto.second(study)] if pareto.second(study) else []),
    ]
    for name in dict.fromkeys(m for m in metrics if m in runs):
        scale, words = (1 / pareto.UNITS[name][0], pareto.UNITS[name][1]) if name in pareto.UNITS else (100, f"{_title(name)}, %")
        columns.append({"id": name, "name": words, "values": [short(scale * v) for v in runs[name]]})
    columns += [
        {"id": "seconds", "name": "time, s", "values": [short(v) for v in runs["seconds"]]},
        {"id": "seed", "name": "seed", "values": [int(v) for v in runs["seed"]]},
    ]
    varied, constant = [], {}
    spaces = {p.name: p for p in search.parameters(study)}
    for name in [str(c) for c in runs if str(c).startswith("param.")]:
        values, words = runs[name].tolist(), name[6:]
        if len({show(v) for v in values}) < 2:
            constant[words] = without_folders(show(values[0]))[:_WORDS] if values else ""
            continue
        numbers = all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values)
        given = [
            short(finite(v)) if numbers and v is not None else None if v is None else without_folders(show(v))[:_WORDS] for v in values
        ]
        varied.append({"id": f"param.{words}", "name": words, "values": given, "log": words in spaces and spaces[words].log})
    return {
        "id": [key[:8] for key in runs["key"]],
        "what": named(study, runs),
        "groups": order,
        "group": [order.index(g) for g in group],
        "statuses": list(STATUSES),
        "status": [STATUSES.index(s) for s in runs["status"]],
        "columns": [*columns, *varied],
        "constant": constant,
        "searched": [f"param.{name}" for name in spaces],
        "told": [_told(study, row) for row in rows],
    }


def _told(study: Study, row: Mapping[Any, Any]) -> dict[str, Any]:
    """What is shown of a run that is selected alone."""
    said = {
        "key": row["key"],
        "configuration": row["config_hash"],
        "commit": f"{row['commit'] or '–'}{' with local changes' if row['dirty'] is True else ''}",
        "device": row["device"] or "–",
        "ended": row["ended"] or "–",
        "memory": "" if math.isnan(row["peak_memory_bytes"]) else f"{row['peak_memory_bytes'] / 2**20:.0f} MiB at most",
        "checkpoint": without_folders(row["checkpoint"] or ""),
        "not used": "" if row["known"] else "of another data set or procedure",
        "error": without_folders(row["error"] or ""),
    }
    return {
        "facts": {name: str(value)[:2000] for name, value in said.items() if value},
        "files": files_of(study, row["key"], row["checkpoint"]),
    }


def files_of(study: Study, key: str, checkpoint: str | None) -> list[tuple[str, str]]:
    """(word, address relative to the report) of what is there of a run: its folder, its log, its checkpoint."""
    folder = artefacts.run_folder(study, key)
    if folder is None:
        return []
    out = [("folder", f"checkpoints/{key}/")]
    names = [Path(checkpoint).name] if checkpoint and Path(checkpoint).parent == Path("checkpoints") / key else []
    for word, name in (("log", "log.txt"), *(("checkpoint", n) for n in names), ("result", "result.json")):
        if (folder / name).is_file():
            out.append((word, f"checkpoints/{key}/{quote(name)}"))
    return out


def _curves(study: Study, runs: pd.DataFrame) -> dict[str, Any]:
    """{measures: [{id, name}], lines: {measure: {place of the run: [first epoch, values]}}}; epochs that are not consecutive are listed."""
    told = study.history(runs["key"].iloc[:_CURVES])
    place = {key: i for i, key in enumerate(runs["key"])}
    measures: list[dict[str, str]] = []
    lines: dict[str, dict[str, Any]] = {}
    if told.empty:
        return {"measures": measures, "lines": lines}
    by_run = told.groupby("key", sort=False)["stage"].unique()
    stages = list(dict.fromkeys(s for run in sorted(by_run, key=len, reverse=True) for s in run))  # a run with all stages tells their order
    known = ["loss", study.intermediate, study.metric]
    names = [
        n
        for n in [*known, *sorted({str(c) for c in told} - set(known))]
        if n in told and n not in (*_SET, "key", "seed", "config_hash", "stage", "epoch")
    ]
    for stage in stages:
        part = told[told["stage"] == stage]
        for name in dict.fromkeys(names):
            some = part[part[name].notna()]
            if some.empty:
                continue
            share = name.startswith(("val_", "test_", "external_"))
            measure = f"{stage}: {name}"
            measures.append({"id": measure, "name": f"{stage}: {_title(name) + ', %' if share else name.replace('_', ' ')}"})
            lines[measure] = {}
            for key, own in some.groupby("key", sort=False):
                epochs = own["epoch"].to_numpy()
                values = [short((100 if share else 1) * v) for v in own[name]]
                first = int(epochs[0]) if np.array_equal(epochs, np.arange(len(epochs)) + int(epochs[0])) else [short(e) for e in epochs]
                lines[measure][str(place[str(key)])] = [first, values]
    return {"measures": measures, "lines": lines}


def _table(summary: Summary) -> dict[str, Any]:
    table = summary.table
    return {
        "slug": table.slug,
        "baseline": summary.baseline,
        "metrics": [{"id": m, "name": _title(m)} for m in table.metrics],
        "rows": [
            {
                "name": r.arm.name,
                "state": r.state,
                "runs": [k[:8] for k in r.keys],
                "cells": [_cell(r.cells[m]) for m in table.metrics],
            }
            for r in summary.rows
        ],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    """level, gain, paper's level, paper's gain: [value, low, high] each; nothing of a paper that is not compared."""
    theirs = cell.published if cell.published and cell.published.compared else None
    out: dict[str, Any] = {"n": cell.n, "seeds": [[s, short(v)] for s, v in cell.values]}
    if cell.n:
        out["level"] = [short(v) for v in (cell.mean, *cell.interval)]
    if cell.pairs:
        out["gain"] = [short(v) for v in (cell.gain, *cell.gain_interval)]
    if theirs and not theirs.word:
        out["paper"] = [short(theirs.mean), *(short(theirs.mean + s * theirs.std) for s in (-1, 1))]
        if cell.paper_gain:
            out["paperGain"] = [short(v) for v in (cell.paper_gain[0], *cell.paper_gain[1])]
    elif theirs:
        out["word"] = theirs.word
    return out


def _calibration(beside: Beside) -> dict[str, Any] | None:
    found = beside.calibration
    if found is None:
        return None

    def line(r: Any) -> list[list[float | None]]:
        return [[short(100 * c), short(100 * a), int(n)] for c, a, n in zip(r.confidence, r.accuracy, r.count, strict=True) if n >= FEWEST]

    return {"all": line(found.pooled), "runs": [line(r) for r in found.runs] if len(found.runs) > 1 else []}


def _map(study: Study, beside: Beside, light: bool) -> dict[str, Any] | None:
    sides, seen = seen_by(study, beside)
    shown, seed = choose(sides, seen, "embedding")
    panels = maps(study, shown, compute=not light) if shown else []
    if not panels:
        return None
    return {
        "seed": seed,
        "index": panels[0][4].tolist(),
        "panels": [
            {"name": name, "x": _grid(map_[:, 0]), "y": _grid(map_[:, 1]), "group": label.tolist(), "names": list(names)}
            for name, map_, label, names, _ in panels
        ],
    }


def _grid(values: np.ndarray) -> list[int]:
    return np.rint(999 * values).astype(int).tolist()  # type: ignore[no-any-return]


def _title(metric: str) -> str:
    """With its part where it is not the validation's: two columns of one name would be one."""
    return f"{'Test ' if metric.startswith('test_') else ''}{title(metric).lower() if metric.startswith('test_') and title(metric)[1:].islower() else title(metric)}"
