"""Reads a study folder. In: study.json and records.jsonl. Out: `Study`, whose `records` is a tidy table, one row per run.

A study is read while it is being written and after machines died under it, so nothing in the two files is fatal: what cannot be
used is set aside and named, once and in words, in `Study.warnings`. The order of the lines never matters."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.mixture import mixture, origins
from analysis.records import RANK, SCHEMA, Columns, merge, read_lines, read_records
from analysis.values import BROKEN as BROKEN
from analysis.values import STATUSES as STATUSES
from analysis.values import finite as finite
from analysis.values import listed as listed
from analysis.values import mapping as mapping
from analysis.values import plural as plural
from analysis.values import text_of as text_of
from analysis.values import whole as whole
from analysis.values import without_folders as without_folders

if TYPE_CHECKING:
    from analysis.choice import Best
    from analysis.summary import Summary


class StudyError(ValueError):
    """A folder in which there is nothing to report."""


@dataclass(frozen=True)
class Arm:
    """A row of a table: baseline + overrides. `published` is its key in published.csv, None where the paper has no such row. yardstick: what
    can be had without the method, no candidate for the best. described: of another's method, fields with the values of its
    description."""

    name: str
    config_hash: str
    published: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    yardstick: bool = False
    described: Mapping[str, Any] = field(default_factory=dict)


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
    a run has none) and every parameter as `param.<name>`. `known` is False for runs of another data set or procedure, and for those beside
    which another of the same configuration and seed counts: shown, never used."""

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
    def drawn(self) -> bool:
        """Whether its images are the built-in set, drawn by this program: none of a paper's kind."""
        return bool(mapping(self.asked.get("data")).get("synthetic"))

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
        """The rows of `records` of this procedure and data set, one for each configuration and seed."""
        return self.records[self.records["known"]]

    @cached_property
    def unasked(self) -> pd.DataFrame:
        """Of `usable` the runs of arms of the tables by seeds that the study does not ask for (any more), and that neither its search nor its race asked
        for: no table, claim or choice looks at them."""
        race = mapping(self.asked.get("race"))
        raced = {str(one["config_hash"]) for one in map(mapping, listed(race.get("finalists"))) if one.get("config_hash")}
        rows = self.usable[self.usable["config_hash"].isin({arm.config_hash for table in self.tables for arm in table.arms})]
        rows = rows[~rows["seed"].isin(self.seeds) & rows["trial"].isna()]
        return rows[~(rows["config_hash"].isin(raced) & rows["seed"].isin(listed(race.get("seeds"))))]

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
        return rows[rows["seed"].isin(self.seeds)]

    def detail(self, key: str) -> dict[str, Any]:
        """A run's whole record, with its history, confusion matrices and error; {} for an unknown key."""
        found = read_lines(self.folder / "records.jsonl", self.lines[key]) if key in self.lines else []
        return merge(found)[0] if found else {}

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


_SHARE = re.compile(r"(?:val|test|external_\w+)_(?:accuracy|precision|sensitivity|specificity|f1|f2|recall|auc|ami|ari|purity)")


def load(study_dir: str | Path) -> Study:
    """Reads STUDY_DIR/study.json and STUDY_DIR/records.jsonl. StudyError where the folder has neither."""
    folder = Path(study_dir)
    if "://" in str(study_dir):
        raise StudyError(f"{study_dir} is an address; `karyotune report {study_dir}` brings that study, and names the folder to give here")
    if not folder.is_dir():
        raise StudyError(f"no study folder {str(study_dir)!r}; give the folder that holds study.json and records.jsonl")
    if not any((folder / name).exists() for name in ("study.json", "records.jsonl")):
        raise StudyError(f"{str(study_dir)!r} holds neither study.json nor records.jsonl; give the folder of one study")
    warnings: list[str] = []
    asked = _read_asked(folder / "study.json", warnings)
    tables = _read_tables(asked, warnings)
    columns, lines = read_records(folder / "records.jsonl", warnings)
    records = _frame(columns, asked, warnings)
    of_tables = records[records["config_hash"].isin({a.config_hash for t in tables for a in t.arms})]
    if records.empty and not any("records.jsonl" in w for w in warnings):
        warnings.append("the study has no usable record yet")
    _check_arms(Study(folder, asked, tables, of_tables, ()), warnings)
    made = Study(folder, asked, tables, records, (), lines)
    if len(others := made.unasked):
        words = f"{plural(len(others), 'run')} of {plural(others['seed'].nunique(), 'seed')} that the study does not ask for now"
        warnings.append(
            f"{words} ({', '.join(map(str, sorted(others['seed'].unique())[:12]))}) are in the records: counted among the runs and their hours, and in no "
            f"table, claim or choice; `karyotune {made.procedure} --request {folder.name}/request.toml --repeats N` with more seeds takes them up"
        )
    known = records[records["known"]]
    warnings += [without_folders(line) for line in map(text_of, listed(asked.get("aside"))) if line]  # machines that were found wanting
    warnings += mixture(origins(known))
    return Study(folder, asked, tables, records, tuple(warnings), lines)


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
                        mapping(arm.get("described")),
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
                warnings.append(
                    f"table {table.number}: {arm.name} has one completed seed of {len(study.seeds)}: nothing is known of other seeds"
                )
    if missing:
        from analysis.summary import phrase  # it reads a Study

        for metric, keys in sorted(missing.items()):
            warnings.append(f"{plural(len(keys), 'completed run')} of the tables without a finite {phrase(metric)}: left out of its mean")


def _frame(columns: Columns, asked: Mapping[str, Any], warnings: list[str]) -> pd.DataFrame:
    frame = columns.frame()
    procedure, data_hash = text_of(asked.get("procedure")), text_of(mapping(asked.get("data")).get("hash"))
    frame["known"] = True
    for column, wanted, word in (("procedure", procedure, "procedure"), ("data_hash", data_hash, "data set")):
        strange = frame["known"] & (frame[column] != wanted) if wanted else pd.Series(False, index=frame.index)
        if strange.any():
            warnings.append(f"{plural(int(strange.sum()), 'run')} of another {word} left out of all tables and figures")
            frame.loc[strange, "known"] = False
    _only_shares(frame, warnings)
    return _one_a_seed(frame, warnings)


def _only_shares(frame: pd.DataFrame, warnings: list[str]) -> None:
    """Takes out what is no share: an accuracy of 1.1 is another unit or a fault, and no mean may rest on it."""
    for name in (str(column) for column in frame if _SHARE.fullmatch(str(column))):
        low = -1.0 if name.rpartition("_")[2] in ("ami", "ari") else 0.0
        if (out := (frame[name] > 1 + 1e-9) | (frame[name] < low - 1e-9)).any():
            values = ", ".join(f"{value:.4g}" for value in frame.loc[out, name].head(3))
            warnings.append(
                f"{plural(int(out.sum()), 'run')} with {name} out of {low:g} to 1 ({values}): left out of it; a record holds shares of 1, not per cent"
            )
            frame.loc[out, name] = math.nan


def _one_a_seed(frame: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Of several runs of one configuration and seed (by several codes, say) the most final one counts, of those the one that ended last; the
    others are known no more."""
    known = frame[frame["known"]]
    twice = known[known.duplicated(["config_hash", "seed"], keep=False)]
    said, dropped = [], []
    for (config_hash, seed), rows in twice.groupby(["config_hash", "seed"], sort=True):
        runs = zip(rows["status"], rows["ended"], rows["key"], rows["codes"], rows["arms"], strict=True)
        *others, last = sorted((RANK[status], ended or "", key, codes, arms) for status, ended, key, codes, arms in runs)
        dropped += [key for _, _, key, *_ in others]
        what = "; ".join(last[4]) or f"configuration {str(config_hash)[:8]}"
        codes = " and ".join(sorted({code[:8] for *_, codes, _ in (*others, last) for code in codes.split()} or {"unknown"}))
        said.append(
            f"{what} has {len(rows)} runs of seed {seed} (code {codes}): run {last[2][:8]}, the last that ended, is the one that counts"
        )
    frame.loc[frame["key"].isin(dropped), "known"] = False
    warnings += said[:5] + ([f"{len(said) - 5} more seeds have several runs, of which the last that ended counts"] if len(said) > 5 else [])
    return frame


def runs_of(study: Study, config_hash: str, metric: str) -> dict[int, tuple[str, float]]:
    """Of each completed run of a configuration that has the metric: {seed: (key, per cent)}."""
    rows = study.usable
    if metric not in rows:
        return {}
    rows = rows[
        (rows["config_hash"] == config_hash) & (rows["status"] == "completed") & rows["seed"].isin(study.seeds) & rows[metric].notna()
    ]
    return {int(seed): (str(key), 100 * float(value)) for seed, key, value in zip(rows["seed"], rows["key"], rows[metric], strict=True)}


def by_seed(study: Study, arm: Arm, metric: str) -> dict[int, float]:
    """Of each completed run of an arm that has the metric, by seed, per cent."""
    return {seed: value for seed, (_, value) in runs_of(study, arm.config_hash, metric).items()}
