"""Reads records.jsonl. In: its path. Out: its runs by column, one row a run, where the lines of each run stand, and words for what was set aside.

Nothing in the file is fatal, and the order of its lines never matters. Of several lines with one key the most final stands."""

from __future__ import annotations

import json
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from analysis.mixture import codes_of, device_of, versions_of
from analysis.values import STATUSES, finite, listed, mapping, plural, text_of, whole, without_folders

SCHEMA = 1
# Of two lines with one key the more final one stands: a run that failed or was pruned may be run again, never the other way round.
RANK = {"failed": 0, "pruned": 1, "diverged": 2, "collapsed": 2, "completed": 3}
_REASONS = {
    "unreachable_weights": "weights unreachable",
    "out_of_memory": "out of memory",
    "not_finite": "not finite",
    "worker_killed": "worker killed",
}
_SCALARS = (
    "key", "study", "procedure", "seed", "trial", "status", "config_hash", "data_hash", "commit", "dirty", "device", "seconds",
    "gpu_seconds", "paid_seconds", "peak_memory_bytes", "interruptions", "started", "ended", "worker", "checkpoint",
)  # fmt: skip
_TEXTS = ("study", "procedure", "data_hash", "commit", "started", "ended", "worker", "checkpoint")
_NUMBERS = ("seconds", "gpu_seconds", "paid_seconds", "peak_memory_bytes", "interruptions")
_SHARED = ("study", "procedure", "status", "data_hash", "commit", "device", "worker", "reason", "codes", "versions")
_BULKY = ("arms", "stages_reused", "stage_seconds", "stage_hashes")


class Columns:
    """Records by column while they are read: a study of 100,000 runs as dictionaries would not fit into 1 GB."""

    def __init__(self) -> None:
        self.count = 0
        self.fields: dict[str, list[Any]] = {k: [] for k in (*_SCALARS, *_BULKY, "error_kind", "error", "reason", "codes", "versions")}
        self.metrics: dict[str, array[float]] = {}
        self.params: dict[str, list[Any]] = {}
        self._pool: dict[str, str] = {}  # one copy of each text that many runs share
        self._waiting: list[dict[str, Any]] = []  # not yet columns: a hundred at a time are still in the processor's cache

    def add(self, record: dict[str, Any]) -> None:
        """A new last row."""
        self._waiting.append(record)
        if len(self._waiting) == 100:
            self._settle()

    def _settle(self) -> None:
        """Turns the records that wait into columns. A metric or parameter that few have is padded when the next run has it."""
        for name, column in self.fields.items():
            cells = _cells(name, self._waiting)
            column += self._shared(cells) if name in _SHARED else cells
        metrics, params = ([mapping(r.get(k)) for r in self._waiting] for k in ("metrics", "params"))
        for name in set().union(*metrics):
            self._metric(name).extend([finite(m.get(name)) for m in metrics])
        for name in set().union(*params):
            self._param(name).extend(self._shared([p.get(name) for p in params]))
        self.count += len(self._waiting)
        self._waiting.clear()

    def replace(self, row: int, record: dict[str, Any]) -> None:
        self._settle()
        for name, column in self.fields.items():
            column[row] = _cells(name, [record])[0]
        metrics, params = mapping(record.get("metrics")), mapping(record.get("params"))
        for name in self.metrics.keys() | metrics.keys():
            self._metric(name)[row] = finite(metrics.get(name))
        for name in self.params.keys() | params.keys():
            self._param(name)[row] = params.get(name)

    def _metric(self, name: str) -> array[float]:
        """The column, as long as there are rows."""
        column = self.metrics.setdefault(name, array("d"))
        column.extend([math.nan] * (self.count - len(column)))
        return column

    def _param(self, name: str) -> list[Any]:
        column = self.params.setdefault(name, [])
        column += [None] * (self.count - len(column))
        return column

    def _shared(self, values: list[Any]) -> list[Any]:
        share = self._pool.setdefault
        return [share(v, v) if type(v) is str else v for v in values]

    def frame(self) -> pd.DataFrame:
        """One row per run, sorted by configuration, seed and key."""
        self._settle()
        places = list(zip(*(self.fields[k] for k in ("config_hash", "seed", "key")), strict=True))
        order = np.array(sorted(range(self.count), key=places.__getitem__), dtype=np.intp)
        columns: dict[str, Any] = {}
        for name, values in self.fields.items():
            columns[name] = np.fromiter(values, float if name in _NUMBERS else object, self.count)
        named = {f"metric.{name}" if name in columns or name == "known" else name: name for name in self.metrics}
        for column, name in sorted(named.items()):
            columns[column] = np.array(self._metric(name), dtype=float)
        for name in sorted(self.params):
            columns[f"param.{name}"] = np.fromiter(self._param(name), object, self.count)
        # A Series of its own dtype, so that a missing text stays None and a parameter keeps its type.
        frame = pd.DataFrame({k: pd.Series(v[order], dtype=v.dtype) for k, v in columns.items()})
        frame["seed"] = frame["seed"].astype("int64")
        frame["trial"] = frame["trial"].astype("Int64")
        return frame


def read_records(path: Path, warnings: list[str]) -> tuple[Columns, dict[str, tuple[tuple[int, int], ...]]]:
    """The records by column without their bulk (history, confusion), and where in the file the lines of each key stand."""
    columns = Columns()
    lines: dict[str, tuple[tuple[int, int], ...]] = {}
    broken: list[int] = []
    foreign: list[int] = []
    schemas: dict[str, int] = defaultdict(int)
    start = 0
    if not path.exists():
        warnings.append("records.jsonl is missing: no run has ended yet")
    else:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                span, start = (start, len(line)), start + len(line)
                if not line.strip():
                    continue
                try:
                    record = _parse(line)
                except ValueError:  # UnicodeDecodeError is one as well
                    if line.endswith(b"\n"):
                        broken.append(number)
                    else:
                        torn = f"the last line of records.jsonl is torn ({plural(len(line), 'byte')}) and was set aside"
                        warnings.append(f"{torn}: its run counts as not run")
                    continue
                if not isinstance(record, dict) or "key" not in record or "status" not in record:
                    foreign.append(number)
                elif record.get("schema") != SCHEMA:
                    schemas[repr(record.get("schema"))] += 1
                elif not _names_a_run(record):
                    foreign.append(number)
                else:
                    earlier = lines.get(record["key"])
                    lines[record["key"]] = (*earlier, span) if earlier else (span,)
                    if not earlier:
                        record.pop("history", None)
                        record.pop("confusion", None)
                        columns.add(record | {"paid_seconds": paid_seconds([record])})
        if start == 0:
            warnings.append("records.jsonl is empty (0 bytes): no run has ended yet")
    if broken:
        warnings.append(f"{plural(len(broken), 'line')} of records.jsonl cannot be read as JSON and were set aside: {_numbers(broken)}")
    if foreign:
        warnings.append(f"{plural(len(foreign), 'line')} of records.jsonl are not records of a run and were set aside: {_numbers(foreign)}")
    for schema, count in sorted(schemas.items()):
        warnings.append(f"{plural(count, 'record')} of schema {schema} set aside, known is {SCHEMA}")
    clashes = []
    rows = {key: row for row, (key, spans) in enumerate(lines.items()) if len(spans) > 1}
    for key in sorted(rows):
        found = read_lines(path, lines[key])
        record, clash = merge(found)
        columns.replace(rows[key], record | {"paid_seconds": paid_seconds(found)})
        if clash:
            clashes.append(f"{plural(len(lines[key]), 'record')} share the key {key[:12]} but differ in {clash}; the earliest is used")
    warnings += clashes[:5] + ([f"{len(clashes) - 5} more keys stand in records.jsonl with different values"] if len(clashes) > 5 else [])
    return columns, lines


def read_lines(path: Path, spans: Iterable[tuple[int, int]]) -> list[dict[str, Any]]:
    found = []
    with path.open("rb") as file:
        for start, length in spans:
            file.seek(start)
            found.append(_parse(file.read(length)))
    return found


def _parse(line: bytes) -> Any:
    """A line's value; ValueError where it is not JSON. orjson takes a quarter of json's time, which was half of a large study's.

    What it refuses is for json to judge, so both know the same lines: NaN, huge numbers, other encodings. An integer of more than 64 bits
    becomes a float."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            return json.loads(line)
        except RecursionError as error:  # ten thousand open brackets are no record either
            raise ValueError("nested too deeply") from error


def _names_a_run(record: Mapping[str, Any]) -> bool:
    key, config_hash = record["key"], record.get("config_hash")
    named = isinstance(key, str) and key and isinstance(config_hash, str) and whole(record.get("seed")) is not None
    return bool(named) and record["status"] in STATUSES


def _cells(name: str, records: list[dict[str, Any]]) -> list[Any]:
    """A column of the table: what the records say under a name, with its type made sure."""
    if made := {"codes": codes_of, "versions": versions_of, "device": device_of}.get(name):
        return [made(r) for r in records]
    if name == "reason":
        return [_reason(r) for r in records]
    if name in ("error", "error_kind"):
        word = "message" if name == "error" else "kind"
        return [text_of(mapping(r.get("error")).get(word)) or None for r in records]
    given = [r.get(name) for r in records]
    if name in _TEXTS:
        return [v if type(v) is str and v else None for v in given]
    if name in _NUMBERS:
        return [finite(v) for v in given]
    if name in ("arms", "stages_reused"):
        return [tuple(map(str, listed(v))) for v in given]
    if name in ("stage_seconds", "stage_hashes"):
        return [mapping(v) for v in given]
    return [whole(v) for v in given] if name == "trial" else given


def merge(found: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """One record of all lines with one key, and in what they contradict each other ('' if in nothing).

    The most final status stands; a line of that status which adds metrics, arms or a trial's number adds them; of two values for
    one metric the one that ended first stands. Sorted by content, so that the order in the file does not matter."""
    top = max(RANK[r["status"]] for r in found)
    level = [r for r in found if RANK[r["status"]] == top]
    if len(level) == 1:
        chosen = level[0]
    else:
        level.sort(key=lambda r: (str(r.get("ended") or ""), json.dumps(r, sort_keys=True, default=str)), reverse=top == 0)
        chosen = dict(level[0])
    clash: set[str] = set()
    for other in level[1:]:
        if top == 0:
            continue  # of failures the last stands as it is
        mine, theirs = mapping(chosen.get("metrics")), mapping(other.get("metrics"))
        clash |= {str(k) for k in mine.keys() & theirs.keys() if not _same(mine[k], theirs[k])}
        chosen["metrics"] = {**theirs, **mine}
        if "confusion" in other:
            chosen["confusion"] = {**mapping(other["confusion"]), **mapping(chosen.get("confusion"))}
        chosen["arms"] = tuple(sorted({*map(str, listed(chosen.get("arms"))), *map(str, listed(other.get("arms")))}))
        for k in ("trial", "checkpoint"):
            chosen[k] = other.get(k) if chosen.get(k) is None else chosen[k]
    if top > 1 and any(r["status"] in ("completed", "diverged", "collapsed") and r["status"] != chosen["status"] for r in found):
        clash.add("status")
    trials = [t for r in found if (t := whole(r.get("trial"))) is not None]
    if trials and whole(chosen.get("trial")) is None:
        chosen = {**chosen, "trial": min(trials)}
    return chosen, ", ".join(sorted(clash))


def paid_seconds(found: Iterable[Mapping[str, Any]]) -> float:
    """What a run took of all lines with its key, as a budget counts it: GPU seconds, or those of its workers where it has none, of every
    try, with what machines' faults cost."""
    lives: dict[str, float] = {}
    for record in found:
        own = next((v for k in ("gpu_seconds", "worker_seconds", "seconds") if (v := finite(record.get(k))) > 0), 0.0)
        lost = finite(record.get("lost_seconds"))
        life = str(record.get("started") or "")  # a line that only adds the test part's metrics keeps it
        lives[life] = max(lives.get(life, 0.0), own + (lost if lost > 0 else 0.0))
    return sum(lives.values())


def _reason(record: Mapping[str, Any]) -> str:
    """Why a run has no result, in a few words; '' for a completed one."""
    if record["status"] in ("completed", "pruned"):
        return "" if record["status"] == "completed" else "stopped early by the search"
    if record["status"] in ("diverged", "collapsed"):
        return str(record["status"])
    error = mapping(record.get("error"))
    kind, message = text_of(error.get("kind")), text_of(error.get("message"))
    first = without_folders(message.strip().splitlines()[0]) if message.strip() else ""
    return _REASONS.get(kind) or (first[:117] + "..." if len(first) > 120 else first) or "failed without a message"


def _same(a: Any, b: Any) -> bool:
    a, b = finite(a), finite(b)
    return a == b or (math.isnan(a) and math.isnan(b))


def _numbers(lines: list[int]) -> str:
    shown = ", ".join(str(n) for n in lines[:5])
    return f"line {shown}" + (f" and {len(lines) - 5} more" if len(lines) > 5 else "")
