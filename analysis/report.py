"""Writes tables, figures, report.html and report.md of a study. In: a study folder. Out: files in it, each written whole or not at all.

The report is rewritten after every ended run, so it must be quick, and a reader must never meet half a file: every file is written under
a temporary name and renamed. Nothing of the clock goes into it: the same records give the same bytes."""

from __future__ import annotations

import gc
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd

from analysis import artefacts, frames, methods, paper, search, search_figures
from analysis import figures as fg
from analysis import tables as tb
from analysis.beside import Beside, calibration_words, look
from analysis.choice import Best, best
from analysis.claims import rests_on
from analysis.crossed import Crossed, clip
from analysis.drawing import Drawing, alone, inline
from analysis.levels import runs_of
from analysis.run_figures import artefact_words
from analysis.statistics import NONE, Interval, mean_std
from analysis.study import STATUSES, Study, finite, load, mapping, plural, without_folders
from analysis.summary import Summary, test_over_train, title

_RUNS_SHOWN = 400  # rows of the table of runs; more would make the page slow and no reader goes through them


@dataclass(frozen=True)
class Report:
    """The files written, and how long it took."""

    paths: tuple[Path, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A figure in the page: its SVG, its text, and (format, file name) of its files in figures/."""

    svg: str
    words: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Health:
    """How the study went: runs by status, hours, and what shared stages saved."""

    counts: Mapping[str, int]
    asked: int  # runs that the tables ask for and that have no record yet
    hours: float
    gpu_hours: float
    saved: float  # share of all work (done + saved) that shared stages spared; nan where no stage was shared
    reused: int  # stages taken over instead of trained
    money: tuple[float, str] | None  # what the hours cost, and in what words


@dataclass(frozen=True)
class Gain:
    """The winner's test score, and its gain over the study's baseline configuration by seed, per cent; of the validation where none was tested."""

    metric: str
    mean: float
    std: float
    interval: Interval
    rests: str  # on what the interval rests
    over: str
    gain: float
    gain_interval: Interval
    pairs: int
    chosen: str  # the validation score that chose it, in words


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cycles meanwhile: among millions of small values it finds none, and costs a tenth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_uncollected()
def write_report(
    study_dir: str | Path, figures: Literal["full", "light"] = "full", price_per_hour: float | None = None, pdf: bool = False
) -> Report:
    """Reads STUDY_DIR and writes tables/, figures/ (SVG), methods.md, report.html and report.md into it. `light` computes no embedding map: for a
    report while the study runs. pdf: each figure as PDF for a paper too, also at the width of a column where it can live there.
    price_per_hour: of one GPU, or of one worker where no run used a GPU; in any currency.

    StudyError where there is no study. What is wrong inside it stands in the report and in `Report.warnings`."""
    began = time.perf_counter()
    study = load(study_dir)
    _sweep(study.folder)
    summaries, winner = study.summaries, best(study)
    files: dict[str, bytes] = {}
    files |= {f"tables/{name}": encoded(text) for name, text in paper_files(study).items()}
    files["methods.md"] = encoded(methods.methods_md(study))
    runs = _runs_shown(study, summaries, winner)
    links = {key: f"#run-{i}" for i, key in enumerate(runs["key"], 1)}
    trials = search.trial_table(study)
    beside = look(study, summaries, winner)
    drawings = fg.drawings(study, trials, summaries, winner, links, beside, light=figures == "light", column=pdf)
    made = [_write(study.folder / "figures", drawing, pdf) for drawing in drawings]
    pictures, drawn = {one.name: one.picture for one in made}, tuple(path for one in made for path in one.paths)
    files["tables/per-class.csv"] = encoded(tb.classes_to_csv(beside.pairing, beside.classes))
    page = _page(study, price_per_hour, trials, summaries, winner, runs, links, pictures, beside)
    for name in ("report.html", "report.md"):
        files[name] = encoded(templates().get_template(f"{name}.j2").render(page))
    paths = tuple(write_file(study.folder / name, content) for name, content in files.items())
    return Report(paths + drawn, time.perf_counter() - began, study.warnings)


def paper_files(study: Study) -> dict[str, str]:
    """What is written into tables/ for a paper and for programs, by file name."""
    files = {"numbers.tex": paper.numbers_tex(study)}
    for summary in study.summaries:
        cells, name = study.results[study.results["table"] == summary.table.number], f"table-{summary.table.slug}"
        files |= {f"{name}.csv": cells.to_csv(index=False, lineterminator="\n"), f"{name}.md": tb.to_markdown(summary)}
        for metric in summary.table.metrics if summary.rows else ():
            ending = "" if metric == summary.table.metric else f"-{frames.slug(metric.removeprefix('test_'))}"
            files[f"{name}{ending}.tex"] = f"{paper.MARK} {name}{ending}.tex\n{tb.to_tex(summary, cells, metric)}"
    return files


@dataclass(frozen=True)
class _Made:
    """A figure as the page takes it, and its files that were written."""

    name: str
    picture: Picture
    paths: tuple[Path, ...]


def _write(folder: Path, drawing: Drawing, pdf: bool) -> _Made:
    svg = drawing.svg()
    content = {f"{drawing.name}.svg": ("SVG", encoded(alone(svg)))}
    if pdf and drawing.column is not None:
        content[f"{drawing.name}-column.pdf"] = ("column PDF", drawing.pdf(drawing.column))
    if pdf:
        content[f"{drawing.name}.pdf"] = ("PDF", drawing.pdf())
    paths = tuple(write_file(folder / name, data) for name, (_, data) in content.items())
    return _Made(
        drawing.name, Picture(inline(drawing, svg), drawing.words, tuple((word, name) for name, (word, _) in content.items())), paths
    )


def encoded(text: str) -> bytes:
    """UTF-8; half a character, which JSON can hold and a file name can be read as, becomes a question mark."""
    return text.encode(errors="replace")


def _sweep(folder: Path) -> None:
    """Remove what reports that were killed left half written."""
    for path in [*folder.glob(".*.partial"), *folder.glob("tables/.*.partial"), *folder.glob("figures/.*.partial")]:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 60:  # else another report may be at it
                path.unlink()


def write_file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def templates() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.globals.update(
        number=tb.number,
        plus_minus=tb.plus_minus,
        interval=tb.interval,
        published=tb.published,
        gain=tb.gain,
        probability=tb.probability,
        nan=math.nan,
        heading=tb.heading,
        title=title,
        over=frames.over,
        shown=frames.shown,
        to_markdown=tb.to_markdown,
        isnan=math.isnan,
        plural=plural,
        zip=zip,
    )
    env.filters.update(md=tb.markdown, plain=without_folders)
    return env


def _page(
    study: Study,
    price_per_hour: float | None,
    trials: pd.DataFrame,
    summaries: tuple[Summary, ...],
    winner: Best | None,
    runs: pd.DataFrame,
    links: Mapping[str, str],
    pictures: Mapping[str, Picture],
    beside: Beside,
) -> dict[str, Any]:
    return {
        "study": study,
        "summaries": summaries,
        "best": winner,
        "gain_of": _gain(study, summaries, winner),
        "health": _health(study, summaries, price_per_hour),
        "changed": _changed(study, winner),
        "pictures": pictures,
        "links": links,
        "runs": _run_rows(study, runs, links),
        "runs_left_out": len(study.records) - len(runs),
        "beside": beside,
        "beside_words": (*beside.words, *artefact_words(study, beside), *_copies(study)),
        "calibration": calibration_words(beside.calibration) if beside.calibration else "",
        "lone": fg.lone,
        "training_pictures": [n for n in pictures if n.startswith("training-")],
        "confusion_pictures": [n for n in pictures if n.startswith("confusion")],
        "artefact_pictures": [n for n in ("embedding", "heat", "clusters", "nearest") if n in pictures],
        "baselines": _baselines(study),
        "study_log": "log.txt" if (study.folder / "log.txt").is_file() else "",
        "overtuning": search.overtuning(study, trials),
        "size_baseline": _size_baseline(study),
        "data_notes": [str(n) for n in notes] if isinstance(notes := mapping(study.asked.get("data")).get("notes"), list) else [],
        "few_trials": search.FEWEST,
        "busy": search_figures.worked(study)[2],
        "provenance": _provenance(study),
        "question": methods.question(study),
        "statuses": STATUSES,
        "css": (Path(__file__).parent / "report.css").read_text(encoding="utf-8"),
        "js": (Path(__file__).parent / "report.js").read_text(encoding="utf-8"),
    }


def _copies(study: Study) -> tuple[str, ...]:
    """How many of the test images keep their class when they come in another form, as the export has measured it."""
    try:
        told = json.loads((study.folder / "best" / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing is exported yet; `data check` names a damaged export
        return ()
    same = mapping(told.get("same_class")) if isinstance(told, Mapping) else {}
    parts = [f"{name} {100 * part:.0f} %" for name, part in same.items() if isinstance(part, float)]
    return (f"Copies of test images to which the exported model gives the class of the image itself: {', '.join(parts)}.",) if parts else ()


def _gain(study: Study, summaries: tuple[Summary, ...], winner: Best | None) -> Gain | None:
    """Against the study's own baseline configuration (the published one); where that is the winner, against the arm that the table of the
    winner names as its baseline."""
    if winner is None:
        return None
    tested = "test_" + study.metric.removeprefix("val_")
    metric = tested if runs_of(study, winner.config_hash, tested) else study.metric
    mine, crossed = runs_of(study, winner.config_hash, metric), Crossed(study)
    named = [(a.config_hash, a.name) for s in summaries for a in s.table.arms if not a.overrides and s.table.number != "search"]
    named += [(a.config_hash, a.name) for s in summaries for a in s.table.arms if a.name == s.baseline]
    over, gained = "", None
    for config_hash, name in named:
        theirs = runs_of(study, config_hash, metric)
        if config_hash != winner.config_hash and mine.keys() & theirs.keys():
            ratio = max(test_over_train(study, one, metric) for one in (winner.config_hash, config_hash))
            over, gained = name, crossed.mean(metric, mine, theirs, ratio)
            break
    level = crossed.mean(metric, mine, ratio=test_over_train(study, winner.config_hash, metric))
    values = np.array([value for _, value in mine.values()])
    chosen = f"{title(study.metric)} {tb.number(100 * winner.mean)} %"
    words = (
        f"{chosen}, by which it was chosen: the best of several, so it flatters"
        if metric == tested
        else "not tested yet: a validation score flatters"
    )
    return Gain(
        metric, *mean_std(values), clip(metric, level.interval()), rests_on(level), over, gained.value if gained else math.nan,
        gained.interval() if gained else NONE, gained.seeds if gained else 0, words,
    )  # fmt: skip


def _health(study: Study, summaries: tuple[Summary, ...], price: float | None) -> Health:
    rows = study.usable
    counts = Counter(rows["status"])
    asked = {(a.config_hash, s) for summary in summaries for a in summary.table.arms for s in study.seeds}
    there = set(zip(rows["config_hash"], rows["seed"], strict=True))
    trained: dict[tuple[str, str], float] = {}
    saved, reused = 0.0, 0
    stages = [rows[k].tolist() for k in ("stage_hashes", "stages_reused", "stage_seconds")]
    for hashes, taken, seconds in zip(*stages, strict=True):
        for stage, value in hashes.items():
            if stage not in taken and not math.isnan(took := finite(seconds.get(stage))):
                trained[stage, str(value)] = max(took, trained.get((stage, str(value)), 0.0))
    for hashes, taken, _ in zip(*stages, strict=True):
        if taken:
            reused += len(taken)
            saved += sum(trained.get((stage, str(hashes.get(stage))), 0.0) for stage in taken)
    spent, gpu = float(rows["seconds"].sum()), float(rows["gpu_seconds"].sum())
    money = None
    if price is not None:
        money = (price * (gpu or spent) / 3600, f"spent at {price:g} per {'GPU' if gpu else 'worker'}-hour")
    share = saved / (saved + spent) if saved + spent > 0 and reused else math.nan
    return Health({s: counts[s] for s in STATUSES}, len(asked - there), spent / 3600, gpu / 3600, share, reused, money)


def _size_baseline(study: Study) -> str:
    """What image and foreground area alone reach, in words; '' where it was not measured."""
    given = mapping(mapping(study.asked.get("data")).get("size_baseline"))
    share, low, high = (finite(given.get(k)) for k in ("accuracy", "low", "high"))
    if any(map(math.isnan, (share, low, high))):
        return ""
    return f"The size of an image and of its foreground alone give {100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f}) accuracy."


def _changed(study: Study, winner: Best | None) -> tuple[tuple[str, str, str], ...]:
    """The winner's parameters that differ from the study's baseline: (name, value, baseline's value); searched ones always."""
    baseline = study.asked.get("baseline")
    space = study.asked.get("space")
    if winner is None or not isinstance(baseline, Mapping):
        return ()
    row = study.records[study.records["key"] == winner.key].iloc[0]
    out = []
    for name in sorted(c.removeprefix("param.") for c in study.records.columns if c.startswith("param.")):
        mine, theirs = row[f"param.{name}"], baseline.get(name)
        if tb.show(mine) != tb.show(theirs) or (isinstance(space, Mapping) and name in space):
            out.append((name, tb.show(mine), tb.show(theirs)))
    return tuple(out)


def _runs_shown(study: Study, summaries: tuple[Summary, ...], winner: Best | None) -> pd.DataFrame:
    """The runs of the tables and of the winner first, then those of the search, then the rest; no more than fit."""
    wanted = dict.fromkeys([*(k for s in summaries for r in s.rows for k in r.keys), *(winner.keys if winner else ())])
    rest = study.records[["trial", "key"]].sort_values("trial", kind="stable", na_position="last")[
        "key"
    ]  # by configuration, seed, key already
    keys = list(dict.fromkeys([*wanted, *rest]))[:_RUNS_SHOWN]
    return study.records.set_index("key", drop=False).loc[keys]


def _run_rows(study: Study, runs: pd.DataFrame, links: Mapping[str, str]) -> list[dict[str, Any]]:
    names: dict[str, list[str]] = {}
    for table in study.tables:
        for arm in table.arms:
            names.setdefault(arm.config_hash, []).append(f"{table.number}/{arm.name}")
    out = []
    tested = "test_" + study.metric.removeprefix("val_")
    for row in runs.to_dict("records"):
        trial = None if pd.isna(row["trial"]) else int(row["trial"])
        out.append(
            {
                "id": links[row["key"]][1:],
                "what": "; ".join(names.get(row["config_hash"], [])) or ("" if trial is None else f"trial {trial}") or "–",
                "trial": trial,
                "seed": row["seed"],
                "status": row["status"],
                "reason": row["reason"],
                "score": 100 * row.get(study.metric, math.nan),
                "test": 100 * row.get(tested, math.nan),
                "seconds": row["seconds"],
                "key": row["key"],
                "config_hash": row["config_hash"],
                "data_hash": row["data_hash"] or "–",
                "commit": row["commit"] or "–",
                "dirty": row["dirty"] is True,
                "device": row["device"] or "–",
                "checkpoint": row["checkpoint"],
                "files": _files_of(study, row["key"], row["checkpoint"]),
                "known": row["known"],
                "error": without_folders(row["error"] or ""),
                "ended": row["ended"] or "–",
                "peak": row["peak_memory_bytes"] / 2**20,
                "params": ", ".join(
                    f"{str(k)[6:]} = {tb.show(v)}" for k, v in row.items() if str(k).startswith("param.") and tb.show(v) != "–"
                ),
            }
        )
    return out


def _baselines(study: Study) -> tuple[tuple[str, ...], tuple[tuple[str, dict[str, float]], ...]]:
    """What simpler methods reach: the metrics, and (name, value by metric in per cent)."""
    given = mapping(study.asked.get("data")).get("baselines")
    rows = []
    for entry in map(mapping, given if isinstance(given, list) else []):
        numbers = {str(k): finite(v) for k, v in mapping(entry.get("metrics")).items()}
        values = {k: 100 * v for k, v in numbers.items() if not math.isnan(v)}
        if isinstance(entry.get("name"), str) and values:
            rows.append((entry["name"], values))
    return tuple(dict.fromkeys(m for _, values in rows for m in values)), tuple(rows)


def _files_of(study: Study, key: str, checkpoint: str | None) -> tuple[tuple[str, str], ...]:
    """(word, address relative to the report) of what is there of a run: its folder, its log, its checkpoint."""
    folder = artefacts.run_folder(study, key)
    if folder is None:
        return ()
    out = [("folder", f"checkpoints/{key}/")]
    names = [Path(checkpoint).name] if checkpoint and Path(checkpoint).parent == Path("checkpoints") / key else []
    for word, name in (("log", "log.txt"), *(("checkpoint", n) for n in names), ("result", "result.json")):
        if (folder / name).is_file():
            out.append((word, f"checkpoints/{key}/{quote(name)}"))
    return tuple(out)


def _provenance(study: Study) -> str:
    """Plain text: what was asked, with what code, on what data, by which files."""
    asked = study.asked
    data, versions = mapping(asked.get("data")), mapping(asked.get("versions"))
    rows = study.usable
    commits = sorted({str(c) for c in rows["commit"].dropna()})
    lines = [
        ("study", study.name),
        ("procedure", study.procedure),
        ("preset", asked.get("preset")),
        ("created", asked.get("created")),
        ("command", asked.get("command")),
        ("commit", f"{asked.get('commit')}{' (with local changes)' if asked.get('dirty') else ''}"),
        ("commits of the runs", ", ".join(commits) or None),
        ("data", data.get("source")),
        ("data hash", data.get("hash")),
        ("images", data.get("images")),
        ("parts", ", ".join(f"{k} {v}" for k, v in data["parts"].items()) if isinstance(data.get("parts"), Mapping) else None),
        ("seeds", ", ".join(map(str, study.seeds))),
        ("objective", f"{study.metric}, {'maximised' if study.maximize else 'minimised'}"),
        ("devices", ", ".join(sorted({str(d) for d in rows["device"].dropna()})) or None),
        ("code", ", ".join(sorted({code[:16] for codes in rows["codes"].unique() for code in codes.split()})) or None),
        ("versions", ", ".join(f"{k} {v}" for k, v in sorted(versions.items())) or None),
        ("records", f"{plural(len(study.records), 'run')} in records.jsonl"),
    ]
    return "\n".join(f"{name + ':':<21}{without_folders(str(value))}" for name, value in lines if value not in (None, "", "None"))
