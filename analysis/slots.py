"""What each slot of the machines did when. In: a Study. Out: its runs by slot with times, and the share of the slots' time in which they worked."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.numbers import short
from analysis.study import STATUSES, Study

_BARS = 1_500  # runs as bars of their own; more are joined


def worked(study: Study) -> tuple[pd.DataFrame, list[float], float]:
    """Runs by slot in seconds since the first began (columns key, slot, status, from, to), where pauses of everybody were cut out, and the share
    of the slots' time in which they worked (nan without times). A slot is a place of a machine for one run at a time: a worker's process may be
    another after each run, so runs of a machine are laid into as many slots as were ever at work together. Of a run that was interrupted the time
    that it trained, up to its end: between its lives nobody may have been at work."""
    rows = study.usable[["key", "worker", "status", "started", "ended", "seconds", "interruptions"]]
    rows = rows.assign(begin=_clock(rows["started"]), end=_clock(rows["ended"]))
    rows["begin"] = rows["begin"].mask(rows["interruptions"] > 0, np.maximum(rows["begin"], rows["end"] - rows["seconds"]))
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


def joined(part: pd.DataFrame, gap: float) -> pd.DataFrame:
    """The bars of one slot and status, those closer than `gap` seconds as one: thousands would be thinner than a line."""
    part = part.sort_values("from")
    new = (part["from"] - part["to"].shift(fill_value=-math.inf) > gap).cumsum()
    return part.groupby(new).agg({"key": "first", "from": "min", "to": "max"})


def _clock(texts: pd.Series) -> pd.Series:
    """Seconds since 1970; nan for what is no time."""
    times = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
    return (times - pd.Timestamp("1970-01-01", tz="UTC")).dt.total_seconds()


def view(study: Study, place: Mapping[str, int]) -> dict[str, Any] | None:
    """Bars [slot, status, from, to, place of the run or -1] in seconds, and where pauses of everybody were cut out."""
    runs, cuts, busy = worked(study)
    if runs.empty:
        return None
    names = sorted(set(runs["slot"]), key=lambda name: (name.rpartition(" ")[0], int(name.rpartition(" ")[2])))
    bars = []
    for y, name in enumerate(names):
        for number, status in enumerate(STATUSES):
            part = runs[(runs["slot"] == name) & (runs["status"] == status)]
            part = joined(part, runs["to"].max() / 700) if len(runs) > _BARS and len(part) else part
            bars += [
                [y, number, short(a), short(b), place.get(k, -1)] for k, a, b in zip(part["key"], part["from"], part["to"], strict=True)
            ]
    return {
        "count": len(names),
        "bars": bars,
        "cuts": [short(c) for c in cuts],
        "end": short(float(runs["to"].max())),
        "busy": short(100 * busy),
    }
