"""More than one study: two compared, or several of one procedure and data set merged. In: study folders. Out: files in a folder of their own."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import artefacts
from analysis import statistics as st
from analysis.artefacts import run_folder
from analysis.crossed import Crossed, apart, clip_gain, of_pairs
from analysis.frames import over
from analysis.mixture import kinds
from analysis.numbers import interval, number
from analysis.page import script, style, templates
from analysis.report import Report, encoded, write_file, write_report
from analysis.statistics import NONE, Interval
from analysis.study import Study, StudyError, listed, load, mapping, plural, text_of, whole, without_folders
from analysis.summary import Cell, Row, title
from analysis.tables import markdown, plus_minus


@dataclass(frozen=True)
class Pair:
    """One arm in both studies, ranking metric of its table, per cent. `difference` is second minus first; its interval holds together with those of
    the other arms (`comparisons` in all)."""

    table: str
    arm: str
    metric: str
    first: Cell
    second: Cell
    difference: float
    interval: Interval
    paired: int  # seeds in both; 0 where the test images differ and nothing can be paired
    over: str  # what the interval is over; why there is none where predictions are lost; else ''
    comparisons: int
    differs: tuple[str, ...]  # what else differs between the two rows: split, settings, code, versions, devices, seeds


_BROKE = "no claim: runs of either diverged or collapsed"


def compare(first: Study, second: Study) -> tuple[Pair, ...]:
    """Arms of the same table and name. On the same data and split they are paired by seed, and where predictions are kept the interval is over
    seeds and patients, or there is none (see `Crossed`); else nothing is paired, and it is of both levels' errors (see `apart`), or Welch's where
    both are over seeds alone. Where splits are redrawn per seed both have
    Nadeau and Bengio's variance, as the tables have. An arm that stands in several tables is one comparison."""
    here, there = Crossed(first), Crossed(second)
    others = {(s.table.number, r.arm.name): r for s in second.summaries for r in s.rows}
    matched = []
    for summary in first.summaries:
        for row in summary.rows:
            other, metric = others.get((summary.table.number, row.arm.name)), summary.table.metric
            if other is not None and metric in other.cells:
                same = _data_hash(first) == _data_hash(second) != "" and row.split == other.split
                matched.append((summary.table.number, row, other, metric, same))

    def between(row: Row, other: Row, metric: str, same: bool, comparisons: int = 1) -> tuple[float, Interval, int, str]:
        return _difference(here, row, row.cells[metric], there, other, other.cells[metric], same, comparisons)

    told = {
        (row.arm.config_hash, other.arm.config_hash, metric)
        for _, row, other, metric, same in matched
        if not math.isnan(between(row, other, metric, same)[1].low)
    }
    return tuple(
        Pair(
            table, row.arm.name, metric, row.cells[metric], other.cells[metric], *between(row, other, metric, same, max(1, len(told))),
            len(told), _differences(first, row, second, other),
        )
        for table, row, other, metric, same in matched
    )  # fmt: skip


def _difference(
    here: Crossed, row: Row, a: Cell, there: Crossed, other: Row, b: Cell, same: bool, comparisons: int
) -> tuple[float, Interval, int, str]:
    """Second minus first, its interval, the seeds that were paired, and what the interval is over; no interval where runs of either broke."""
    broke = row.broken[0] + other.broken[0]
    seeds = sorted(a.runs.keys() & b.runs.keys()) if same else []
    if not seeds:
        if broke:
            return b.mean - a.mean, NONE, 0, _BROKE
        if lost := a.level.lost or b.level.lost:
            return b.mean - a.mean, NONE, 0, f"undecided: {lost}"
        enough = a.n > 1 and b.n > 1
        if enough and (a.level.cases > 1 or b.level.cases > 1):
            ends = clip_gain(a.metric, apart(b.level, a.level, comparisons))
            return b.mean - a.mean, ends, 0, " or ".join(dict.fromkeys(map(over, (a.level, b.level)))) if not math.isnan(ends.low) else ""
        ends = st.welch_interval(b.array, a.array, other.ratio, row.ratio, comparisons) if enough else NONE
        return b.mean - a.mean, ends, 0, "seeds" if not math.isnan(ends.low) else ""
    found = of_pairs(a.metric, seeds, [((there, *b.runs[s]), (here, *a.runs[s])) for s in seeds], max(row.ratio, other.ratio))
    if broke:
        return found.value, NONE, len(seeds), _BROKE
    ends = clip_gain(a.metric, found.interval(comparisons))
    rests = f"undecided: {found.lost}" if found.lost else over(found) if not math.isnan(ends.low) else ""
    return found.value, ends, len(seeds), rests


def _differences(first: Study, row: Row, second: Study, other: Row) -> tuple[str, ...]:
    """What differs between two rows of one name beside the study."""
    runs = [study.usable[study.usable["key"].isin(r.keys)] for study, r in ((first, row), (second, other))]
    settings = []
    for name in sorted({str(c) for rows in runs for c in rows if str(c).startswith("param.") and not str(c).startswith("param.split")}):
        one, two = ({str(v) for v in rows[name].dropna()} if name in rows else set() for rows in runs)
        if one != two and all(len(rows) for rows in runs):
            settings.append(name.removeprefix("param."))
    codes = [set(rows["codes"]) for rows in runs]
    versions = [set(rows["versions"]) for rows in runs]
    unlike = kinds(device for rows in runs for device in rows["device"].dropna())
    devices = [unlike & set(rows["device"]) for rows in runs]
    seeds = [set(rows.loc[rows["status"] == "completed", "seed"]) for rows in runs]
    both = all(len(rows) for rows in runs)
    named = (
        ("data", _data_hash(first) != _data_hash(second)),
        ("split", both and row.split != other.split),
        (f"settings ({', '.join(settings)})", bool(settings)),
        ("code", both and codes[0] != codes[1]),
        ("versions", both and versions[0] != versions[1]),
        ("devices", all(devices) and devices[0] != devices[1]),
        ("seeds", both and seeds[0] != seeds[1]),
    )
    return tuple(word for word, differs in named if differs)


def heading(first: Study, second: Study, pairs: Sequence[Pair]) -> str:
    """Both names, and what differs between them beside their names."""
    kinds = list(dict.fromkeys(word.partition(" (")[0] for pair in pairs for word in pair.differs))
    same = (
        ": same data, split, settings, code, versions and seeds"
        if any(p.first.n and p.second.n for p in pairs)
        else ": no arm has a run of both"
    )
    differs = f": different {', '.join(kinds)}" if kinds else same
    return f"{first.name} and {second.name}{differs}"


def together(pairs: Sequence[Pair]) -> str:
    """What the intervals of a comparison hold for, in words."""
    count = max((pair.comparisons for pair in pairs), default=0)
    if count < 2:
        return "There is one interval." if count else "There is no interval."
    return f"The intervals of the {count} differences hold together at 95 % (Bonferroni)."


def write_comparison(first_dir: str | Path, second_dir: str | Path, out: str | Path) -> tuple[Path, ...]:
    """comparison.csv, .md and .html in `out`. StudyError where the two are of different procedures or share no arm."""
    first, second = load(first_dir), load(second_dir)
    if first.procedure != second.procedure:
        raise StudyError(f"the studies are of different procedures ({first.procedure}, {second.procedure}): their arms are no same arms")
    pairs = compare(first, second)
    if not pairs:
        raise StudyError("the two studies share no arm: arms are matched by table number and name")
    facts = [(word, _fact(first, keys), _fact(second, keys)) for word, keys in _FACTS]
    text = io.StringIO()
    rows = [
        {"table": p.table, "arm": p.arm, "metric": p.metric}
        | {f"{side}_{name}": value for side, c in (("first", p.first), ("second", p.second)) for name, value in _of_cell(c)}
        | {"difference": _exact(p.difference), "simultaneous95_low": _exact(p.interval.low), "simultaneous95_high": _exact(p.interval.high)}
        | {"comparisons": p.comparisons or "", "pairs": p.paired or "", "interval_over": p.over, "differs": "; ".join(p.differs)}
        for p in pairs
    ]
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    lines = [f"# {markdown(heading(first, second, pairs))}", "", "| | first | second |", "| --- | --- | --- |"]
    lines += [f"| {word} | {markdown(a) or '–'} | {markdown(b) or '–'} |" for word, a, b in facts]
    lines += [
        "",
        together(pairs),
        "",
        "| Table | Arm | Metric % | first | second | second − first | simultaneous 95 % interval | over | pairs | differs in |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for p in pairs:
        values = [
            plus_minus(p.first) or "–",
            plus_minus(p.second) or "–",
            number(p.difference, True) or "–",
            interval(p.interval, True) or "–",
            p.over or "–",
            str(p.paired or "–"),
            markdown("; ".join(p.differs)) or "–",
        ]
        lines.append("| " + " | ".join([markdown(p.table), markdown(p.arm), markdown(title(p.metric)), *values]) + " |")
    page = (
        templates()
        .get_template("comparison.html.j2")
        .render(
            first=first,
            second=second,
            pairs=pairs,
            facts=facts,
            words=heading(first, second, pairs),
            together=together(pairs),
            css=style(),
            js=script("tables"),
        )
    )
    files = {"comparison.csv": text.getvalue(), "comparison.md": "\n".join([*lines, ""]), "comparison.html": page}
    return tuple(write_file(Path(out) / name, encoded(content)) for name, content in files.items())


def _of_cell(cell: Cell) -> tuple[tuple[str, int | str], ...]:
    return ("n", cell.n), ("mean", _exact(cell.mean)), ("std", _exact(cell.std))


def _exact(value: float) -> str:
    """In full precision; '' for nan."""
    return "" if math.isnan(value) else repr(float(value))


_FACTS = (
    ("study", ("study",)), ("preset", ("preset",)), ("commit", ("commit",)), ("data", ("data", "source")), ("data hash", ("data", "hash")),
    ("images", ("data", "images")), ("seeds", ("seeds",)), ("torch", ("versions", "torch")),
)  # fmt: skip


def _fact(study: Study, keys: tuple[str, ...]) -> str:
    value: Any = study.asked
    for key in keys:
        value = mapping(value).get(key)
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else without_folders(str(value))


def _data_hash(study: Study) -> str:
    return str(mapping(study.asked.get("data")).get("hash") or "")


def merge(study_dirs: Sequence[str | Path], out: str | Path) -> Path:
    """Writes one study folder with the tables, seeds, records and predictions of several, trials renumbered. StudyError unless procedure,
    preset, data and settings agree, and each arm's seed was trained by one code.

    Data of one hash are the same images with the same patients, so predictions of one study can stand beside those of another."""
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
    _refuse_other_settings(studies)
    _refuse_two_codes(studies)
    _refuse_other_patients(studies)
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
            _refuse_other_arms(known, table)
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
    asked |= {"study": _name(studies), "tables": list(tables.values()), "seeds": seeds, "repeats": len(seeds)}
    asked["trials"] = sum(whole(s.asked.get("trials")) or 0 for s in studies)
    asked["data"] = dict(mapping(asked.get("data"))) | {"external": list(_external_sets(studies).values())}
    asked["aside"] = list(dict.fromkeys(word for s in studies for word in map(text_of, listed(s.asked.get("aside"))) if word))
    _carry(studies, Path(out))
    write_file(Path(out) / "records.jsonl", encoded("".join(lines)))
    write_file(Path(out) / "study.json", encoded(json.dumps(asked, indent=1)))
    return Path(out)


def _external_sets(studies: Sequence[Study]) -> dict[str, dict[str, Any]]:
    """By slug. StudyError where two studies call different images by one name."""
    found: dict[str, dict[str, Any]] = {}
    for study in studies:
        for given in map(mapping, listed(mapping(study.asked.get("data")).get("external"))):
            slug = text_of(given.get("slug"))
            if found.setdefault(slug, given).get("hash") != given.get("hash"):
                raise StudyError(f"the studies have different images as external set {slug} and cannot be merged; --compare takes two")
    return found


def _carry(studies: Sequence[Study], out: Path) -> None:
    """What the runs said of single images, and whose images they are. Of a run that stands in two studies, from where it ended first, whose
    record counts."""
    for slug in ("", *_external_sets(studies)):
        where = Path("external", slug) if slug else Path("data")
        if there := [study.folder / where / "data.json" for study in studies if (study.folder / where / "data.json").is_file()]:
            write_file(out / where / "data.json", there[0].read_bytes())
    for path in {path.name: path for study in reversed(studies) for path in (study.folder / "splits").glob("*.csv")}.values():
        write_file(out / "splits" / path.name, path.read_bytes())
    ended: dict[str, tuple[str, Path]] = {}
    for study in studies:
        for key, when in zip(study.records["key"], study.records["ended"], strict=True):
            folder = run_folder(study, str(key))
            if folder is not None and (folder / "result.json").is_file() and (key not in ended or (when or "") < ended[key][0]):
                ended[key] = when or "", folder / "result.json"
    for key, (_, path) in ended.items():
        write_file(out / "checkpoints" / key / "result.json", path.read_bytes())


def _refuse_other_patients(studies: Sequence[Study]) -> None:
    """StudyError where one study's images have other patients than another's: whose count would hang on the order in which they are given."""
    for slug in ("", *_external_sets(studies)):
        known = [(study.folder.name, artefacts.patients(study, slug)) for study in studies if artefacts.described(study, slug)]
        if len({of for _, of in known}) > 1:
            counts = " and ".join(f"{name} has {len(set(of) - {''}):,}" for name, of in known)
            raise StudyError(
                f"the studies say different patients of the same images{f' of {slug}' if slug else ''} ({counts}) and cannot be merged: "
                "repeat the one without patients with their manifest, or compare the two with --compare"
            )


def _refuse_two_codes(studies: Sequence[Study]) -> None:
    """StudyError where a configuration's seed was trained by two codes: one run of a seed counts, and which one would be chance."""
    runs = pd.concat([study.usable[["config_hash", "seed", "codes", "arms"]] for study in studies])
    runs = runs.drop_duplicates(["config_hash", "seed", "codes"]).sort_values(["config_hash", "seed", "codes"])
    twice = runs[runs.duplicated(["config_hash", "seed"], keep=False)]
    if twice.empty:
        return
    of = twice[(twice["config_hash"] == twice["config_hash"].iloc[0]) & (twice["seed"] == twice["seed"].iloc[0])]
    what = "; ".join(of["arms"].iloc[0]) or f"configuration {of['config_hash'].iloc[0][:8]}"
    codes = " and ".join(codes[:8] or "unknown" for codes in of["codes"])
    count = len(twice[["config_hash", "seed"]].drop_duplicates())
    raise StudyError(
        f"{what}, seed {of['seed'].iloc[0]}, was trained by code {codes} in the studies"
        + (f", and so were {plural(count - 1, 'more run')}" if count > 1 else "")
        + ": which one counts would be chance, so they cannot be merged; --compare takes two, or repeat one study by the other's code"
    )


def _refuse_other_settings(studies: Sequence[Study]) -> None:
    """StudyError where the baselines differ, the split among them: arms of one name would be different ones."""
    first, *others = (mapping(s.asked.get("baseline")) for s in studies)
    names = sorted({k for other in others for k in first.keys() | other.keys() if first.get(k) != other.get(k)})
    if names:
        raise StudyError(f"the studies differ in their settings ({', '.join(names)}) and cannot be merged; --compare takes two")


def _refuse_other_arms(known: Mapping[str, Any], table: Mapping[str, Any]) -> None:
    """StudyError where a table would get two arms of one name, or a second baseline arm."""
    number = text_of(table.get("number"))
    if number != "search" and known.get("baseline_arm") != table.get("baseline_arm"):
        names = " and ".join(repr(one.get("baseline_arm")) for one in (known, table))
        raise StudyError(f"table {number} has different baseline arms ({names}) in the studies, and cannot be merged; --compare takes two")
    hashes = {text_of(a.get("name")): a.get("config_hash") for a in map(mapping, listed(known.get("arms")))}
    for arm in map(mapping, listed(table.get("arms"))):
        if number != "search" and hashes.get(text_of(arm.get("name")), arm.get("config_hash")) != arm.get("config_hash"):
            raise StudyError(
                f"table {number} has two arms {arm.get('name')!r} of different settings, and cannot be merged; --compare takes two"
            )


def _name(studies: Sequence[Study]) -> str:
    """All names, and what of their runs differs."""
    differs = [
        word
        for word, values in (
            ("code", [frozenset(s.usable["codes"]) for s in studies]),
            ("versions", [frozenset(s.usable["versions"]) for s in studies]),
            ("seeds", [frozenset(s.seeds) for s in studies]),
        )
        if len(set(values)) > 1
    ]
    return " + ".join(s.name for s in studies) + (f" (different {', '.join(differs)})" if differs else "")


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
