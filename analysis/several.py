"""More than one study: two compared, or several of one procedure and data set merged. In: study folders. Out: files in a folder of their own."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis import statistics as st
from analysis.report import Report, encoded, templates, write_file, write_report
from analysis.statistics import NONE, Interval
from analysis.study import Study, StudyError, listed, load, mapping, text_of, whole
from analysis.summary import Cell, summarize, title
from analysis.tables import interval, markdown, number, plus_minus


@dataclass(frozen=True)
class Pair:
    """One arm in both studies, ranking metric of its table, per cent. `difference` is second minus first."""

    table: str
    arm: str
    metric: str
    first: Cell
    second: Cell
    difference: float
    interval: Interval
    paired: int  # seeds in both; 0 where the data differ and nothing can be paired


def compare(first: Study, second: Study) -> tuple[Pair, ...]:
    """Arms of the same table and name. On the same data they are paired by seed (two commits); on different data nothing is paired and
    the interval is Welch's. Where splits are redrawn per seed both have Nadeau and Bengio's variance, as the tables have."""
    same = _data_hash(first) == _data_hash(second) != ""
    others = {(s.table.number, r.arm.name): (r, s.ratio) for s in summarize(second) for r in s.rows}
    pairs = []
    for summary in summarize(first):
        for row in summary.rows:
            other, ratio = others.get((summary.table.number, row.arm.name), (None, 0.0))
            metric = summary.table.metric
            if other is not None and metric in other.cells:
                ratios = (summary.ratio, ratio)
                pairs.append(_pair(summary.table.number, row.arm.name, row.cells[metric], other.cells[metric], same, ratios))
    return tuple(pairs)


def _pair(table: str, arm: str, a: Cell, b: Cell, same: bool, ratios: tuple[float, float]) -> Pair:
    theirs = dict(b.values)
    differences = np.array([theirs[s] - v for s, v in a.values if s in theirs]) if same else np.array([])
    if differences.size:
        return Pair(table, arm, a.metric, a, b, float(differences.mean()), st.t_interval(differences, max(ratios)), differences.size)
    ends = st.welch_interval(b.array, a.array, ratios[1], ratios[0]) if a.n > 1 and b.n > 1 else NONE
    return Pair(table, arm, a.metric, a, b, b.mean - a.mean, ends, 0)


def write_comparison(first_dir: str | Path, second_dir: str | Path, out: str | Path) -> tuple[Path, ...]:
    """comparison.csv, .md and .html in `out`. StudyError where the two share no arm."""
    first, second = load(first_dir), load(second_dir)
    pairs = compare(first, second)
    if not pairs:
        raise StudyError("the two studies share no arm: arms are matched by table number and name")
    facts = [(word, _fact(first, keys), _fact(second, keys)) for word, keys in _FACTS]
    columns = (
        "table",
        "arm",
        "metric",
        "first_n",
        "first_mean",
        "first_std",
        "second_n",
        "second_mean",
        "second_std",
        "difference",
        "ci95_low",
        "ci95_high",
        "pairs",
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for p in pairs:
        cells = [v for c in (p.first, p.second) for v in (c.n, number(c.mean), number(c.std))]
        ends = (number(p.interval.low, True), number(p.interval.high, True))
        writer.writerow([p.table, p.arm, p.metric, *cells, number(p.difference, True), *ends, p.paired or ""])
    lines = [f"# {markdown(first.name)} and {markdown(second.name)}", "", "| | first | second |", "| --- | --- | --- |"]
    lines += [f"| {word} | {markdown(a) or '–'} | {markdown(b) or '–'} |" for word, a, b in facts]
    lines += [
        "",
        "| Table | Arm | Metric % | first | second | second − first | 95 % interval | pairs |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for p in pairs:
        values = [
            plus_minus(p.first) or "–",
            plus_minus(p.second) or "–",
            number(p.difference, True) or "–",
            interval(p.interval, True) or "–",
            str(p.paired or "–"),
        ]
        lines.append("| " + " | ".join([markdown(p.table), markdown(p.arm), markdown(title(p.metric)), *values]) + " |")
    page = templates().get_template("comparison.html.j2").render(first=first, second=second, pairs=pairs, facts=facts, **_assets())
    files = {"comparison.csv": text.getvalue(), "comparison.md": "\n".join([*lines, ""]), "comparison.html": page}
    return tuple(write_file(Path(out) / name, encoded(content)) for name, content in files.items())


_FACTS = (
    ("study", ("study",)), ("preset", ("preset",)), ("commit", ("commit",)), ("data", ("data", "source")), ("data hash", ("data", "hash")),
    ("images", ("data", "images")), ("seeds", ("seeds",)), ("torch", ("versions", "torch")),
)  # fmt: skip


def _fact(study: Study, keys: tuple[str, ...]) -> str:
    value: Any = study.asked
    for key in keys:
        value = mapping(value).get(key)
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _data_hash(study: Study) -> str:
    return str(mapping(study.asked.get("data")).get("hash") or "")


def _assets() -> dict[str, str]:
    here = Path(__file__).parent
    return {"css": (here / "report.css").read_text(encoding="utf-8"), "js": (here / "report.js").read_text(encoding="utf-8")}


def merge(study_dirs: Sequence[str | Path], out: str | Path) -> Path:
    """Writes one study folder with the tables, seeds and records of several, trials renumbered. StudyError unless procedure, preset and
    data agree."""
    studies = [load(d) for d in study_dirs]
    for word, value in (
        ("procedure", lambda s: s.procedure),
        ("preset", lambda s: text_of(s.asked.get("preset"))),
        ("data hash", _data_hash),
    ):
        found = sorted({value(s) for s in studies})
        if len(found) > 1:
            raise StudyError(
                f"the studies differ in their {word} ({', '.join(v[:12] or 'none' for v in found)}) and cannot be merged; --compare takes two"
            )
    if (Path(out) / "study.json").exists() and any(
        (Path(out) / "study.json").samefile(s.folder / "study.json") for s in studies if (s.folder / "study.json").exists()
    ):
        raise StudyError("the merged study would overwrite one of its parts; give another --out")
    tables: dict[str, dict[str, Any]] = {}
    lines, first = [], 0
    for study in studies:
        for given in map(mapping, listed(study.asked.get("tables"))):
            table = _renumbered(given, first) if given.get("number") == "search" else given
            known = tables.setdefault(str(table.get("number")), {**table, "arms": []})
            there = {text_of(a.get("config_hash")) for a in known["arms"]}
            known["arms"] += [a for a in map(mapping, listed(table.get("arms"))) if a and text_of(a.get("config_hash")) not in there]
        for key in study.records["key"]:
            record = study.detail(key)
            trial = whole(record.get("trial"))
            arms = [_moved(str(a), first, "search/") for a in listed(record.get("arms"))]
            lines.append(json.dumps(record | {"trial": None if trial is None else trial + first, "arms": arms}) + "\n")
        numbers = study.records["trial"].dropna()
        first += int(numbers.max()) + 1 if len(numbers) else 0
    seeds = sorted({seed for s in studies for seed in s.seeds})
    asked = dict(studies[0].asked)
    asked |= {"study": " + ".join(s.name for s in studies), "tables": list(tables.values()), "seeds": seeds, "repeats": len(seeds)}
    asked["trials"] = sum(whole(s.asked.get("trials")) or 0 for s in studies)
    write_file(Path(out) / "records.jsonl", encoded("".join(lines)))
    write_file(Path(out) / "study.json", encoded(json.dumps(asked, indent=1)))
    return Path(out)


def _renumbered(table: Mapping[str, Any], first: int) -> dict[str, Any]:
    """The table of a search, whose arms are called by their trials, with trial numbers that begin at `first`."""
    arms = [a | {"name": _moved(text_of(a.get("name")), first)} for a in map(mapping, listed(table.get("arms"))) if a]
    return {**table, "arms": arms, "baseline_arm": _moved(text_of(table.get("baseline_arm")), first) or None}


def _moved(name: str, first: int, before: str = "") -> str:
    """`trial 3` -> `trial 9` for first = 6; another name stays."""
    found = re.fullmatch(rf"{before}trial (\d{{1,9}})", name)
    return f"{before}trial {int(found[1]) + first}" if found else name


def write_merged(study_dirs: Sequence[str | Path], out: str | Path, price_per_hour: float | None = None, pdf: bool = False) -> Report:
    """The report of the merged study, in `out`."""
    return write_report(merge(study_dirs, out), price_per_hour=price_per_hour, pdf=pdf)
