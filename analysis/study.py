"""Reads a study folder. In: study.json and records.jsonl. Out: `Study`, whose `records` is a tidy table, one row per run.

A study is read while it is being written and after machines died under it, so nothing in the two files is fatal: what cannot be
used is set aside and named, once and in words, in `Study.warnings`. The order of the lines never matters."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pandas as pd

from analysis.mixture import codes_of, mixture, versions_of

if TYPE_CHECKING:
    from analysis.choice import Best
    from analysis.summary import Summary

SCHEMA = 1
STATUSES = ("completed", "pruned", "diverged", "collapsed", "failed")
BROKEN = ("diverged", "collapsed")  # a configuration's own endings without a score
# Of two lines with one key the more final one stands: a run that failed or was pruned may be run again, never the other way round.
_RANK = {"failed": 0, "pruned": 1, "diverged": 2, "collapsed": 2, "completed": 3}
_REASONS = {
    "unreachable_weights": "weights unreachable",
    "out_of_memory": "out of memory",
    "not_finite": "not finite",
    "worker_killed": "worker killed",
}
_SCALARS = (
    "key",
    "study",
    "procedure",
    "seed",
    "trial",
    "status",
    "config_hash",
    "data_hash",
    "commit",
    "dirty",
    "device",
    "seconds",
    "gpu_seconds",
    "peak_memory_bytes",
    "started",
    "ended",
    "worker",
    "checkpoint",
)
_TEXTS = ("study", "procedure", "data_hash", "commit", "device", "started", "ended", "worker", "checkpoint")
_NUMBERS = ("seconds", "gpu_seconds", "peak_memory_bytes")
_SHARED = ("study", "procedure", "status", "data_hash", "commit", "device", "worker", "reason", "codes", "versions")
_BULKY = ("arms", "stages_reused", "stage_seconds", "stage_hashes")


class StudyError(ValueError):
    """A folder in which there is nothing to report."""


@dataclass(frozen=True)
class Arm:
    """A row of a table: baseline + overrides. `published` is its key in published.csv, None where the paper has no such row. yardstick: what
    can be had without the method, no candidate for the best."""

    name: str
    config_hash: str
    published: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    yardstick: bool = False


@dataclass(frozen=True)
class Table:
    """A published or own ablation. `metric` ranks it, `metrics` are its columns, `baseline_arm` is what rows are compared with."""

    number: str
    title: str
    metric: str
    metrics: tuple[str, ...]
    arms: tuple[Arm, ...]
    dataset: str | None = None
    baseline_arm: str | None = None
    external_dataset: str | None = None  # the published data set that the columns of external sets stand beside
    published_number: str | None = None  # the paper's number of it, where that is another

    @property
    def slug(self) -> str:
        """The table's number as part of a file name."""
        return re.sub(r"[^A-Za-z0-9_-]+", "_", self.number) or "_"


@dataclass(frozen=True, repr=False)
class Study:
    """What a study folder says. `asked` is study.json; `records` has one row per run, sorted by configuration and seed:

    key, status, reason, seed, trial, config_hash, arms, seconds, gpu_seconds, ..., every metric under its own name (fractions, nan where
    a run has none) and every parameter as `param.<name>`. `known` is False for runs of another data set or procedure: shown, never used."""

    folder: Path
    asked: Mapping[str, Any]
    tables: tuple[Table, ...]
    records: pd.DataFrame
    warnings: tuple[str, ...]
    lines: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status in STATUSES if (count := int((self.usable["status"] == status).sum())))
        tables = f"tables {', '.join(t.number for t in self.tables)}" if self.tables else "no tables"
        said = f", {plural(len(self.warnings), 'warning')}" if self.warnings else ""
        return f"<study {self.name}: {self.procedure}, {plural(len(self.records), 'run')} ({counts or 'none ended'}), {tables}{said}>"

    @property
    def name(self) -> str:
        return text_of(self.asked.get("study")) or self.folder.resolve().name

    @property
    def procedure(self) -> str:
        return text_of(self.asked.get("procedure")) or next(iter(sorted(self.records["procedure"].dropna().unique())), "unknown")

    @property
    def seeds(self) -> tuple[int, ...]:
        seeds = [s for s in map(whole, listed(self.asked.get("seeds"))) if s is not None]
        return tuple(seeds) or tuple(sorted({int(s) for s in self.records["seed"].dropna()}))

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(str(c) for c in listed(mapping(self.asked.get("data")).get("classes")))

    @property
    def parts(self) -> dict[str, int]:
        """Images by part: train, val, test."""
        parts = mapping(mapping(self.asked.get("data")).get("parts"))
        return {str(k): v for k, v in parts.items() if (whole(v) or 0) > 0}

    @property
    def external_images(self) -> dict[str, int]:
        """Images of each external set by its slug."""
        sets = map(mapping, listed(mapping(self.asked.get("data")).get("external")))
        return {text_of(s.get("slug")): s["images"] for s in sets if text_of(s.get("slug")) and whole(s.get("images")) is not None}

    @property
    def metric(self) -> str:
        """What the search maximises or minimises."""
        return text_of(mapping(self.asked.get("objective")).get("metric")) or "val_accuracy"

    @property
    def intermediate(self) -> str:
        """What the search watches during a run."""
        return text_of(mapping(self.asked.get("objective")).get("intermediate")) or self.metric

    @property
    def maximize(self) -> bool:
        return mapping(self.asked.get("objective")).get("direction") != "minimize"

    @cached_property
    def usable(self) -> pd.DataFrame:
        """The rows of `records` of this procedure and data set."""
        return self.records[self.records["known"]]

    # Typed tables for a notebook. The modules that make them read a Study, so they are imported where they are wanted.

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row for each run: status, seed, times, every metric (fractions) and every parameter (`param.<name>`)."""
        from analysis import frames

        return frames.runs(self)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row for each reported epoch of each run."""
        from analysis import frames

        return frames.epochs(self)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """A row for each image that each completed run was judged on: truth, predicted, probabilities, patient."""
        from analysis import frames

        return frames.predictions(self)

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """The tables with their rows, worked out once."""
        from analysis import summary

        return summary.summarize(self)

    @cached_property
    def winner(self) -> Best | None:
        """`analysis.best(study)`, worked out once."""
        from analysis import choice

        return choice.best(self)

    @cached_property
    def results(self) -> pd.DataFrame:
        """A row for each cell of each table, per cent: mean, interval, gain over the baseline arm, the paper's number."""
        from analysis import frames

        return frames.results(self.summaries)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row for each trial of the search, its score in per cent."""
        from analysis import frames

        return frames.trials(self)

    @cached_property
    def _hashes(self) -> np.ndarray:
        """The configuration of each row of `usable`, sorted as the rows are."""
        return np.fromiter(self.usable["config_hash"].array, object, len(self.usable))

    def of_arm(self, arm: Arm) -> pd.DataFrame:
        """The runs of an arm: its configuration, the study's seeds, the study's data; sorted by seed."""
        first, end = (int(np.searchsorted(self._hashes, arm.config_hash, side)) for side in ("left", "right"))
        rows: pd.DataFrame = self.usable.iloc[first:end]
        return rows[rows["seed"].isin(self.seeds)].drop_duplicates("seed")

    def detail(self, key: str) -> dict[str, Any]:
        """A run's whole record, with its history, confusion matrices and error; {} for an unknown key."""
        found = _read_lines(self.folder / "records.jsonl", self.lines[key]) if key in self.lines else []
        return _merge(found)[0] if found else {}

    def history(self, keys: Iterable[str]) -> pd.DataFrame:
        """One row per reported epoch of the runs named: key, seed, config_hash, stage, epoch and what was reported (nan where not)."""
        rows = []
        for key in keys:
            record = self.detail(key)
            for entry in listed(record.get("history")):
                if isinstance(entry, Mapping) and text_of(entry.get("stage")) and not math.isnan(finite(entry.get("epoch"))):
                    numbers = {str(k): finite(v) for k, v in entry.items() if k != "stage"}
                    run = {k: record[k] for k in ("key", "seed", "config_hash")}
                    rows.append({**run, "stage": entry["stage"], **numbers})
        return pd.DataFrame(rows, columns=None if rows else ["key", "seed", "config_hash", "stage", "epoch"])

    def confusion(self, keys: Iterable[str], part: str = "test") -> np.ndarray | None:
        """(C, C) counts, rows = truth, summed over the runs named; None where none of them has a matrix of that part."""
        total: np.ndarray | None = None
        for key in keys:
            given = mapping(self.detail(key).get("confusion")).get(part)
            try:
                matrix = np.array(given, dtype=np.float64)
            except (TypeError, ValueError, OverflowError):  # an integer of hundreds of digits is no count
                continue
            square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 0 and np.isfinite(matrix).all()
            if square and (total is None or total.shape == matrix.shape):
                total = matrix if total is None else total + matrix
        return total


def load(study_dir: str | Path) -> Study:
    """Reads STUDY_DIR/study.json and STUDY_DIR/records.jsonl. StudyError where the folder has neither."""
    folder = Path(study_dir)
    if not folder.is_dir():
        raise StudyError(f"no study folder {str(study_dir)!r}; give the folder that holds study.json and records.jsonl")
    if not any((folder / name).exists() for name in ("study.json", "records.jsonl")):
        raise StudyError(f"{str(study_dir)!r} holds neither study.json nor records.jsonl; give the folder of one study")
    warnings: list[str] = []
    asked = _read_asked(folder / "study.json", warnings)
    tables = _read_tables(asked, warnings)
    columns, lines = _read_records(folder / "records.jsonl", warnings)
    records = _frame(columns, asked, warnings)
    of_tables = records[records["config_hash"].isin({a.config_hash for t in tables for a in t.arms})]
    if records.empty and not any("records.jsonl" in w for w in warnings):
        warnings.append("the study has no usable record yet")
    _check_arms(Study(folder, asked, tables, of_tables, ()), warnings)
    known = records[records["known"]]
    warnings += [without_folders(line) for line in map(text_of, listed(asked.get("aside"))) if line]  # machines that were found wanting
    warnings += mixture(zip(known["codes"], known["versions"], strict=True))
    return Study(folder, asked, tables, records, tuple(warnings), lines)


def plural(count: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}{'es' if word.endswith(('s', 'x')) else 's'}"


# --- study.json ---------------------------------------------------------------------------------------------------------------------


def _read_asked(path: Path, warnings: list[str]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        asked = json.loads(text) if text.strip() else None
    except FileNotFoundError:
        warnings.append("study.json is missing: there are no tables, only the runs")
        return {}
    except (OSError, ValueError, RecursionError):
        warnings.append("study.json cannot be read as JSON: there are no tables, only the runs")
        return {}
    if asked is None:
        warnings.append("study.json is empty (0 bytes of content): there are no tables, only the runs")
        return {}
    if not isinstance(asked, dict) or not any(k in asked for k in ("schema", "study", "tables")):
        warnings.append("study.json is not a study's file: there are no tables, only the runs")
        return {}
    if asked.get("schema") != SCHEMA:
        warnings.append(f"study.json has schema {asked.get('schema')!r}, known is {SCHEMA}: it is read as far as it is understood")
    return asked


def _read_tables(asked: Mapping[str, Any], warnings: list[str]) -> tuple[Table, ...]:
    tables, slugs = [], set()
    for given in listed(asked.get("tables")):
        entry = mapping(given)
        number, metric = text_of(entry.get("number")), text_of(entry.get("metric"))
        if not number or not metric:
            warnings.append("a table of study.json has no number or no metric and is left out")
            continue
        arms = []
        for raw in listed(entry.get("arms")):
            arm = mapping(raw)
            name, config_hash = text_of(arm.get("name")), text_of(arm.get("config_hash"))
            if name and config_hash:
                arms.append(
                    Arm(
                        name,
                        config_hash,
                        text_of(arm.get("published")) or None,
                        mapping(arm.get("overrides")),
                        arm.get("yardstick") is True,
                    )
                )
            else:
                warnings.append(f"an arm of table {number} has no name or no config_hash and is left out")
        named = (str(m) for m in listed(entry.get("metrics")))
        metrics = tuple(dict.fromkeys([metric, *(m for m in named if not m.endswith("_kmeans_std"))]))
        title, *more = (text_of(entry.get(k)) for k in ("title", "dataset", "baseline_arm", "external_dataset", "published_number"))
        dataset, baseline, external, theirs = (word or None for word in more)
        table = Table(number, title or f"Table {number}", metric, metrics, tuple(arms), dataset, baseline, external, theirs)
        if table.slug in slugs:
            warnings.append(f"table {number} stands in study.json twice; the first is used")
            continue
        if table.baseline_arm and table.baseline_arm not in {a.name for a in arms}:
            warnings.append(
                f"table {number} has no arm {table.baseline_arm!r}, which it names as its baseline: nothing is compared with it"
            )
        slugs.add(table.slug)
        tables.append(table)
    return tuple(tables)


# --- records.jsonl ------------------------------------------------------------------------------------------------------------------


class _Columns:
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


def _read_records(path: Path, warnings: list[str]) -> tuple[_Columns, dict[str, tuple[tuple[int, int], ...]]]:
    """The records by column without their bulk (history, confusion), and where in the file the lines of each key stand."""
    columns = _Columns()
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
                        columns.add(record)
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
        record, clash = _merge(_read_lines(path, lines[key]))
        columns.replace(rows[key], record)
        if clash:
            clashes.append(f"{plural(len(lines[key]), 'record')} share the key {key[:12]} but differ in {clash}; the earliest is used")
    warnings += clashes[:5] + ([f"{len(clashes) - 5} more keys stand in records.jsonl with different values"] if len(clashes) > 5 else [])
    return columns, lines


def _read_lines(path: Path, spans: Iterable[tuple[int, int]]) -> list[dict[str, Any]]:
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
    if name in ("codes", "versions"):
        return [(codes_of if name == "codes" else versions_of)(r) for r in records]
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


def _merge(found: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """One record of all lines with one key, and in what they contradict each other ('' if in nothing).

    The most final status stands; a line of that status which adds metrics, arms or a trial's number adds them; of two values for
    one metric the one that ended first stands. Sorted by content, so that the order in the file does not matter."""
    top = max(_RANK[r["status"]] for r in found)
    level = [r for r in found if _RANK[r["status"]] == top]
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


def _frame(columns: _Columns, asked: Mapping[str, Any], warnings: list[str]) -> pd.DataFrame:
    frame = columns.frame()
    procedure, data_hash = text_of(asked.get("procedure")), text_of(mapping(asked.get("data")).get("hash"))
    frame["known"] = True
    for column, wanted, word in (("procedure", procedure, "procedure"), ("data_hash", data_hash, "data set")):
        strange = frame["known"] & (frame[column] != wanted) if wanted else pd.Series(False, index=frame.index)
        if strange.any():
            warnings.append(f"{plural(int(strange.sum()), 'run')} of another {word} left out of all tables and figures")
            frame.loc[strange, "known"] = False
    return frame


def _check_arms(study: Study, warnings: list[str]) -> None:
    """Words for completed runs without one of their table's numbers, and for arms that one seed stands for."""
    missing: dict[str, set[str]] = defaultdict(set)
    for table in study.tables:
        for arm in table.arms:
            rows = study.of_arm(arm)
            done = rows[rows["status"] == "completed"]
            for metric in table.metrics:
                if len(done) and (metric not in done or done[metric].isna().any()):
                    missing[metric] |= set(done["key"] if metric not in done else done.loc[done[metric].isna(), "key"])
            if len(done) == 1 and len(study.seeds) > 1:
                warnings.append(f"table {table.number}: {arm.name} has one completed seed of {len(study.seeds)}: no spread and no interval")
    for metric, keys in sorted(missing.items()):
        warnings.append(f"{plural(len(keys), 'completed run')} of the tables without a finite {metric}: left out of its mean")


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


def without_folders(text: str) -> str:
    """The text with absolute paths cut to their last part: a report is sent to others, whose machine has other folders."""
    return re.sub(r"(?<![\w.~:/])(?:/|[A-Za-z]:\\)[^\s'\",;:]*[/\\]([^\s'\",;:/\\]+)", r"…/\1", text)


def _same(a: Any, b: Any) -> bool:
    a, b = finite(a), finite(b)
    return a == b or (math.isnan(a) and math.isnan(b))


def finite(value: Any) -> float:
    """A finite float, else nan."""
    if type(value) is float:
        return value if math.isfinite(value) else math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def whole(value: Any) -> int | None:
    """A whole number that a column of 64 bits can hold, else None."""
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(lines: list[int]) -> str:
    shown = ", ".join(str(n) for n in lines[:5])
    return f"line {shown}" + (f" and {len(lines) - 5} more" if len(lines) > 5 else "")
